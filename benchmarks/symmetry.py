"""What it costs to find, permute and align: CPU-seconds for a ResNet-18, a ViT-S and a GPT-2.

    python benchmarks/symmetry.py [--models ResNet-18 ViT-S/16 GPT-2] [--repeats 3] [--out FILE.md]

Models are transformers' own with random weights. Two alignments each: of a permuted copy, which
must be recovered to the bit, and of a stranger (weights of another seed), which takes all sweeps.
Then random windows of 64 x 64 values of the stored and of the permuted model, from memory. CPU-time
of this process, best of the repeats.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its threads

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.core_model_loading import revert_weight_conversion

from ws_pipeline.tokens.permuted_values import PermutedValues, map_layers
from ws_pipeline.tokens.records import derive_token_layers
from ws_pipeline.tokens.shard_format import open_shard
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.model_plan import plan_model
from ws_pipeline.weights.packing import VALUES_PREFIX, write_shard
from ws_pipeline.weights.records import layer_to_record
from ws_pipeline.weights.symmetry.alignment import align_model
from ws_pipeline.weights.symmetry.finding import find_symmetry
from ws_pipeline.weights.symmetry.permutation import (
    draw_permutation,
    invert_permutation,
    permute_state,
)

WINDOW_VALUES = 64 * 64
NUM_WINDOWS = 500
RESNET18 = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
VIT_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
MODELS: dict[str, tuple[type, Any]] = {
    "ResNet-18": (ResNetForImageClassification, lambda: ResNetConfig(**RESNET18, num_labels=10)),
    "ViT-S/16": (ViTForImageClassification, lambda: ViTConfig(**VIT_SMALL, num_labels=10)),
    "GPT-2": (GPT2LMHeadModel, GPT2Config),
}


def read_model(kind: str, seed: int) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    torch.manual_seed(seed)
    model_class, make_config = MODELS[kind]
    model = model_class(make_config())
    state = revert_weight_conversion(model, dict(model.state_dict()))
    config = {**model.config.to_dict(), "architectures": [model_class.__name__]}
    return {name: tensor.numpy().copy() for name, tensor in state.items()}, config


def measure(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the least CPU-seconds of the repeats, and the last result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        began = time.process_time()
        result = work()
        best = min(best, time.process_time() - began)
    return best, result


class MemoryValues:
    """Stored values in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self.raw = values.view(np.uint8)

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:  # noqa: ARG002 - F32
        """Copy values out."""
        out[:] = self.raw[4 * start : 4 * start + len(out)].data


def read_windows(state: dict[str, np.ndarray], permutation: Any, repeats: int) -> tuple[str, str]:
    """Return G values per second of windows as stored, and permuted."""
    with tempfile.TemporaryDirectory(prefix="ws-pipeline-") as folder:
        path = Path(folder) / "model.safetensors"
        save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, path)
        checkpoint = Checkpoint.open(path)
        plan = plan_model(checkpoint)
        with (Path(folder) / "shard").open("wb") as out:
            statistics = write_shard(checkpoint, plan, out)
        token_layers = derive_token_layers(map(layer_to_record, plan.layers, statistics))
        stored = MemoryValues(open_shard(Path(folder) / "shard").read_flat(f"{VALUES_PREFIX}F32"))
    placed = map_layers(token_layers, plan.layers, dtypes=["F32"])
    total = len(stored.raw) // 4 - WINDOW_VALUES
    starts = np.random.default_rng(0).integers(0, total, NUM_WINDOWS).tolist()
    buffer = memoryview(bytearray(4 * WINDOW_VALUES))

    def serve(values: Any) -> None:
        for start in starts:
            values.read_into(0, start, buffer)

    permuted = PermutedValues(stored, placed, permutation)
    rates = [
        NUM_WINDOWS * WINDOW_VALUES / measure(lambda v=values: serve(v), repeats)[0] / 1e9
        for values in (stored, permuted)
    ]
    return f"{rates[0]:.2f}", f"{rates[1]:.3f}"


def run(kind: str, repeats: int) -> dict[str, Any]:
    state, config = read_model(kind, seed=0)
    shapes = {name: array.shape for name, array in state.items()}
    found, symmetry = measure(lambda: find_symmetry(shapes, config), repeats)

    def draw() -> Any:
        return draw_permutation(symmetry, shapes, generator=np.random.default_rng(0))

    drawn, permutation = measure(draw, repeats)
    permuted, copy = measure(lambda: permute_state(state, permutation), repeats)
    restored = permute_state(copy, invert_permutation(permutation))
    assert all(np.array_equal(restored[name], state[name]) for name in state)

    def align(model: dict[str, np.ndarray]) -> Any:
        return align_model(state, model, symmetry, generator=np.random.default_rng(0))

    recovery, alignment = measure(lambda: align(copy), 1)
    assert alignment.distance_after == 0.0
    stranger, _ = read_model(kind, seed=1)
    meeting, met = measure(lambda: align(stranger), 1)
    plain, viewed = read_windows(state, permutation, repeats)
    return {
        "model": kind,
        "M params": f"{sum(array.size for array in state.values()) / 1e6:.1f}",
        "groups": len(symmetry.groups),
        "find s": f"{found:.4f}",
        "draw s": f"{drawn:.4f}",
        "permute s": f"{permuted:.3f}",
        "recover a copy s": f"{recovery:.2f}",
        "align a stranger s": f"{meeting:.2f}",
        "sweeps": met.num_sweeps,
        "its distance": f"{met.distance_before:.2f} -> {met.distance_after:.2f}",
        "stored G values/s": plain,
        "permuted G values/s": viewed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [run(kind, arguments.repeats) for kind in arguments.models]
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} shared cores, one "
        f"thread, numpy {np.__version__}; `python benchmarks/symmetry.py`. CPU-seconds, and values "
        "per CPU-second."
    )
    lines = [
        "# Permuting and aligning",
        "",
        about,
        "",
        f"| {' | '.join(rows[0])} |",
        "|---" * len(rows[0]) + "|",
        *(f"| {' | '.join(str(value) for value in row.values())} |" for row in rows),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
