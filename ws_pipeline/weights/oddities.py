"""The values of a checkpoint, read once in chunks: statistics of its layers, and what is odd. I/O.

Odd is what training rarely makes: values that are not finite, layers of one value, outputs that are
all zero, layers that occur twice. Memory is constant whatever a layer's size. Not here: statistics
for a corpus (``statistics``, with quantiles) and any verdict.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite, prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.axes import output_axis
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import is_weight_dtype, widen
from ws_pipeline.weights.plan import Layer, LayerPlan, Treatment

CHUNK = 2**20
"""Elements read at a time: 4 MiB of float32."""

MIN_ODD_PARAMS = 8
"""A layer this small is constant or repeated by chance (a fresh bias, a scalar)."""


@dataclass(kw_only=True, slots=True)
class ValueSummary:
    """What one pass over a tensor finds; moments in float64 around the first value.

    Attributes:
        alive: ``(rows,)`` whether an output has a weight other than zero.
        digest: Of the bytes.
    """

    count: int = 0
    num_bad: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    shift: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    alive: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    digest: bytes = b""

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self.shift + self.total / max(1, self.count)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        mean = self.total / max(1, self.count)
        return sqrt(max(0.0, self.squares / max(1, self.count) - mean * mean))

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in more values; after a first NaN or infinity only those are counted."""
        finite = np.isfinite(values)
        self.num_bad += values.size - int(np.count_nonzero(finite))
        if not self.count and values.size:
            self.shift = float(values.flat[0]) if isfinite(values.flat[0]) else 0.0
        self.count += values.size
        if self.num_bad:
            return
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        centred = values.astype(np.float64).reshape(-1) - self.shift
        self.total += float(centred.sum())
        self.squares += float(np.dot(centred, centred))


def study_layers(
    checkpoint: Checkpoint, plan: LayerPlan, advance: Callable[[int], object]
) -> tuple[dict[str, dict[str, float]], list[dict[str, str]]]:
    """Read every floating-point layer once.

    Args:
        checkpoint: The model.
        plan: Its plan.
        advance: Called with the number of bytes that were just dealt with.

    Returns:
        ({layer name: mean, std, min, max}, [{kind, tensor, detail}]); layers that hold NaN or
        infinity have no statistics.
    """
    statistics: dict[str, dict[str, float]] = {}
    oddities: list[dict[str, str]] = []
    seen: dict[tuple[tuple[int, ...], str, bytes], str] = {}
    for layer in plan.layers:
        advance(layer.num_bytes)
        if not is_weight_dtype(layer.dtype) or layer.why == "quantized" or not layer.num_params:
            continue
        weight = summarize(checkpoint, layer)
        bad = weight.num_bad
        if layer.bias_name:
            with np.errstate(all="ignore"):
                values = widen(checkpoint.read_flat(layer.bias_name))
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            detail = f"{bad:,} of {layer.num_params:,} values"
            oddities.append(_oddity("non_finite_values", layer, detail))
            continue
        statistics[layer.name] = {
            "mean": weight.mean, "std": weight.std, "min": weight.low, "max": weight.high,
        }  # fmt: skip
        if layer.treatment is Treatment.TOKENISED and layer.num_params >= MIN_ODD_PARAMS:
            oddities += _judge(layer, weight)
            if weight.low != weight.high:
                key = (layer.shape, layer.dtype, weight.digest)
                original = seen.setdefault(key, layer.name)
                if original != layer.name:
                    detail = f"the same values as {original}"
                    oddities.append(_oddity("duplicated_layer", layer, detail))
    return statistics, oddities


def summarize(checkpoint: Checkpoint, layer: Layer) -> ValueSummary:
    """Read a layer's weight in chunks and return what was found."""
    summary = ValueSummary(alive=np.zeros(layer.rows, np.bool_))
    hasher = hashlib.blake2b(digest_size=16)
    for row, values in _read_chunks(checkpoint, layer):
        hasher.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        with np.errstate(all="ignore"):  # a signalling NaN warns of itself
            wide = widen(values)
            summary.add(wide)
            alive = wide.any(axis=(0, 2))  # (before, row, after)
        summary.alive[row : row + alive.size] |= alive
    summary.digest = hasher.digest()
    return summary


def _read_chunks(checkpoint: Checkpoint, layer: Layer) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield (first row, values ``(before, row, after)``) in the order of the file."""
    before, rows, after = _geometry(layer)
    block = rows * after
    if block <= CHUNK:
        step = CHUNK // block
        for start in range(0, before, step):
            count = min(step, before - start)
            flat = checkpoint.read_flat(layer.name, start * block, count * block)
            yield 0, flat.reshape(count, rows, after)
        return
    step = max(1, CHUNK // after)
    piece = min(after, CHUNK)
    for part in range(before):
        for row in range(0, rows, step):
            num_rows = min(step, rows - row)
            for place in range(0, after, piece):
                width = min(piece, after - place)
                start = part * block + row * after + place
                flat = checkpoint.read_flat(layer.name, start, num_rows * width)
                yield row, flat.reshape(1, num_rows, width)


def _geometry(layer: Layer) -> tuple[int, int, int]:
    """Return (before, rows, after): the stored weight as an array whose middle axis is its rows."""
    if not layer.transposed:
        return 1, layer.rows, layer.cols
    axis = output_axis(layer.role, len(layer.shape), transposed=True)
    return prod(layer.shape[:axis]), layer.shape[axis], prod(layer.shape[axis + 1 :])


def _judge(layer: Layer, weight: ValueSummary) -> list[dict[str, str]]:
    if weight.low == weight.high:
        return [_oddity("constant_layer", layer, f"every weight is {weight.low:g}")]
    num_dead = int(np.count_nonzero(~weight.alive)) if layer.cols > 1 else 0
    if num_dead:
        return [_oddity("dead_rows", layer, f"{num_dead:,} of {layer.rows:,} outputs are all zero")]
    return []


def _oddity(kind: str, layer: Layer, detail: str) -> dict[str, str]:
    return {"kind": kind, "tensor": layer.name, "detail": detail}
