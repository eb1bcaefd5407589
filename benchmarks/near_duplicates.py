"""Where does a copy end and a relative begin? Finds CorpusPolicy.near_distance.

For every model of the named folders (`<owner>/<name>/model.safetensors`): its distance to altered
copies of itself (which should count as copies, or not), and the distances of all pairs of different
models of the same shapes (which should not). Prints Markdown.

    python benchmarks/near_duplicates.py FOLDER...
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
from safetensors.numpy import save_file

from ws_pipeline.errors import WsPipelineError
from ws_pipeline.tokens.fingerprints import (
    Fingerprint,
    NearIndex,
    measure_distance,
    read_fingerprints,
)
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import is_weight_dtype, widen
from ws_pipeline.weights.packing import plan_checkpoint
from ws_pipeline.weights.records import LAYER_STRUCT, layer_to_record

BOUNDS = (1e-9, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


def permute_hidden(values: Any, _: np.random.Generator) -> Any:
    """Reverse the numbers of a layer: the strongest change of order there is."""
    return values.ravel()[::-1].reshape(values.shape)


def round_int8(values: Any, _: np.random.Generator) -> Any:
    """Round to 255 levels between minus and plus the largest magnitude of each tensor."""
    step = np.abs(values).max(initial=0.0) / 127 or 1.0
    return (np.rint(values / step) * step).astype(np.float32)


def add_noise(share: float) -> Callable[[Any, np.random.Generator], Any]:
    """Make the change that adds normal noise of a share of each tensor's root mean square."""

    def change(values: Any, generator: np.random.Generator) -> Any:
        size = np.sqrt(np.mean(np.square(values, dtype=np.float64)))
        return (values + share * size * generator.standard_normal(values.shape)).astype(np.float32)

    return change


CHANGES: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "none": lambda values, _: values,
    "numbers in another order": permute_hidden,
    "float16": lambda values, _: values.astype(np.float16).astype(np.float32),
    "bfloat16": lambda values, _: values.astype(ml_dtypes.bfloat16).astype(np.float32),
    "noise of 0.1 %": add_noise(0.001),
    "noise of 1 %": add_noise(0.01),
    "int8, one scale a tensor": round_int8,
    "float8 e4m3": lambda values, _: values.astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
}


def read_models(folders: list[Path]) -> Iterator[tuple[str, Checkpoint, Path]]:
    """Yield name, checkpoint and folder of every model that opens."""
    for folder in folders:
        for path in sorted(folder.glob("*/*/model.safetensors")):
            try:
                yield "/".join(path.parts[-3:-1]), Checkpoint.open(path.parent), path.parent
            except WsPipelineError as error:
                print(f"left out: {error.reason}", file=sys.stderr)


def describe(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the row of ``weights/layers`` that fingerprints are read from."""
    plan, measured = plan_checkpoint(checkpoint, carry_unfit=True)
    records = [layer_to_record(layer, m) for layer, m in zip(plan.layers, measured, strict=True)]
    return {"hub_id": name, "accepted": True, "layers": records}


def to_fingerprints(rows: list[dict[str, Any]]) -> dict[str, Fingerprint]:
    """Read rows as the corpus does."""
    schema = {"hub_id": pl.String(), "accepted": pl.Boolean(), "layers": pl.List(LAYER_STRUCT)}
    return read_fingerprints(pl.DataFrame(rows, schema=schema))


def change_copy(source: Checkpoint, folder: Path, name: str, scratch: Path) -> dict[str, Any]:
    """Write a changed copy of a model and describe it."""
    generator = np.random.default_rng(0)
    tensors = {}
    for tensor in source.tensors.values():
        values = source.read(tensor.name)
        is_float = is_weight_dtype(tensor.dtype) and values.size
        tensors[tensor.name] = np.ascontiguousarray(
            CHANGES[name](widen(values).astype(np.float32), generator) if is_float else values
        )
    save_file(tensors, scratch / "model.safetensors")
    if (folder / "config.json").is_file():
        shutil.copy(folder / "config.json", scratch)
    return describe(name, Checkpoint.open(scratch))


def main(folders: list[Path]) -> None:
    """Print both tables."""
    started = time.process_time()
    rows: list[dict[str, Any]] = []
    to_copies: dict[str, list[float]] = {name: [] for name in CHANGES}
    for name, checkpoint, folder in read_models(folders):
        original = describe(name, checkpoint)
        rows.append(original)
        for change, distances in to_copies.items():
            with tempfile.TemporaryDirectory() as scratch, np.errstate(all="ignore"):
                copy = change_copy(checkpoint, folder, change, Path(scratch))
            both = to_fingerprints([original, copy])
            if len(both) == 2 and both[name].shapes == both[change].shapes:
                distances.append(measure_distance(both[name], both[change]))
    print("| copy with | models |" + "".join(f" <= {bound:g} |" for bound in BOUNDS), "largest |")
    print("|---" * (len(BOUNDS) + 3) + "|")
    for change, distances in to_copies.items():
        found = [
            f" {sum(d <= bound for d in distances) / len(distances):.1%} |" for bound in BOUNDS
        ]
        print(f"| {change} | {len(distances)} |{''.join(found)} {max(distances):.2g} |")
    models = to_fingerprints(rows)
    num_pairs, pairs = compare_all(models)
    print(f"\n{len(models)} models, {num_pairs} pairs of the same shapes; nearest:\n")
    print("| distance | same layers in any order | model | nearest to it |\n|---|---|---|---|")
    for distance, left, right in pairs[:12]:
        same = "yes" if models[left].key == models[right].key else "no"
        print(f"| {distance:.3g} | {same} | {left} | {right} |")
    print(f"\n{time.process_time() - started:.0f} CPU-seconds")


def compare_all(models: dict[str, Fingerprint]) -> tuple[int, list[tuple[float, str, str]]]:
    """Return the number of pairs of the same shapes, and those within 0.1, nearest first."""
    index, pairs, num_pairs = NearIndex(distance=0.1), [], 0
    sizes: dict[Any, int] = {}
    for name, model in models.items():
        num_pairs += sizes.get(model.shapes, 0)
        sizes[model.shapes] = sizes.get(model.shapes, 0) + 1
        pairs += [(distance, name, other) for distance, other in index.find(model)]
        index.add(name, model)
    return num_pairs, sorted(pairs)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
