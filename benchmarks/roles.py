"""What the layer plan does not know: unknown shares, wrong roles, round trips, by architecture.

    python benchmarks/roles.py [--folder REPOS] [--out FILE.md]

Three populations. Architectures of transformers at reduced width are built, saved, packed and
unpacked. All architectures that transformers can build from a default config are built at full
size on the meta device, which allocates nothing, and their roles are held against the classes of
the modules that hold the tensors. With ``--folder``, every FOLDER/family/name/model.safetensors.
"""

import argparse
import os
import platform
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ws_pipeline.tokens.shards import pack_path, unpack_path
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.plan import LayerPlan, plan_layers
from ws_pipeline_tests.weights.architectures import (
    ARCHITECTURES,
    ROLES_OF_KINDS,
    build_architecture,
    name_kinds,
)

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
          torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8"}  # fmt: skip


def unknown_share(plan: LayerPlan) -> float:
    unknown = sum(layer.num_params for layer in plan.layers if str(layer.role) == "unknown")
    return unknown / max(1, plan.num_params)


def is_restored(source: Path, folder: Path) -> bool:
    pack_path(source, folder / "tokens")
    (path,) = unpack_path(folder / "tokens", folder / "again.safetensors")
    return path.read_bytes() == (source / "model.safetensors").read_bytes()


def measure_small(kind: str, folder: Path) -> str:
    build_architecture(kind).save_pretrained(folder / "model")
    checkpoint = Checkpoint.open(folder / "model")
    plan = plan_layers(list(checkpoint.tensors.values()), checkpoint.config)
    same = "yes" if is_restored(folder / "model", folder) else "NO"
    return (
        f"| {kind} | {len(checkpoint.tensors):,} | {plan.num_params:,} | "
        f"{unknown_share(plan):.3%} | {same} |"
    )


def build_default(kind: str) -> nn.Module | None:
    """Build at full size without memory; None where the library cannot from a default config."""
    try:
        config = AutoConfig.for_model(kind)
        with torch.device("meta"):
            return AutoModel.from_config(config)
    except Exception:  # noqa: BLE001 - a missing extra, or a config without a default
        return None


def describe(model: nn.Module) -> list[TensorInfo]:
    """List the tensors that a file of the model would hold; shared ones once."""
    seen: set[int] = set()
    tensors = []
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            num_bytes = value.numel() * value.element_size()
            tensors.append(
                TensorInfo(name=name, dtype=DTYPES[value.dtype], shape=tuple(value.shape), start=0,
                           end=num_bytes, num_params=value.numel(), num_bytes=num_bytes)
            )  # fmt: skip
    return tensors


def measure_full() -> Iterator[str]:
    shares: dict[str, float] = {}
    signatures: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
    num_checked = 0
    wrong: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[str]] = defaultdict(set)
    for kind in CONFIG_MAPPING_NAMES:
        model = build_default(kind)
        tensors = [] if model is None else describe(model)
        signature = tuple((tensor.name, tensor.shape) for tensor in tensors)
        if model is None or signature in signatures:
            continue
        signatures.add(signature)
        plan = plan_layers(tensors, {})
        shares[kind] = unknown_share(plan)
        for name, truth in name_kinds(model).items():
            if name not in plan.roles:
                continue
            num_checked += 1
            role = str(plan.roles[name].role)
            if role not in ROLES_OF_KINDS[truth]:
                wrong[truth, role] += 1
                where[truth, role].add(kind)
    worst = sorted(shares.items(), key=lambda item: -item[1])[:5]
    yield f"{len(shares)} architectures with different tensors, {num_checked:,} tensors checked."
    yield "Largest shares unknown: " + ", ".join(f"{kind} {share:.4%}" for kind, share in worst)
    yield f"Roles that the module's class denies: {sum(wrong.values())}."
    for (truth, role), count in wrong.most_common():
        yield f"- {count} x {truth} taken for {role}: {', '.join(sorted(where[truth, role]))}"


def measure_folder(folder: Path) -> Iterator[str]:
    params: dict[str, Counter[str]] = defaultdict(Counter)
    num_models = num_restored = 0
    for source in sorted(path.parent for path in folder.glob("*/*/model.safetensors")):
        checkpoint = Checkpoint.open(source)
        for layer in plan_layers(list(checkpoint.tensors.values()), checkpoint.config).layers:
            params[source.parent.name][str(layer.role)] += layer.num_params
        with tempfile.TemporaryDirectory() as temporary:
            num_models += 1
            num_restored += is_restored(source, Path(temporary))
    total = sum(sum(counts.values()) for counts in params.values())
    unknown = sum(counts["unknown"] for counts in params.values())
    yield f"{num_models} models of {len(params)} families, {num_restored} byte-identical."
    yield f"{total:,} parameters, {unknown / total:.3%} unknown."
    for family, counts in sorted(params.items(), key=lambda item: -item[1]["unknown"]):
        if counts["unknown"]:
            yield f"- {family}: {counts['unknown']:,}, {counts['unknown'] / counts.total():.3%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    started = time.process_time()
    lines = [
        "# Roles and round trips", "",
        (f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} shared cores, "
        f"transformers {transformers.__version__}; `python benchmarks/roles.py`."), "",
        f"## {len(ARCHITECTURES)} architectures at reduced width", "",
        "| architecture | tensors | parameters | unknown | byte-identical |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for kind in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as temporary:
            lines.append(measure_small(kind, Path(temporary)))
    lines += ["", "## Every default config, at full size", "", *measure_full()]
    if arguments.folder:
        lines += ["", f"## Models of other libraries ({arguments.folder.name})", ""]
        lines += measure_folder(arguments.folder)
    lines += ["", f"{time.process_time() - started:.0f} s of CPU."]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
