"""The layers of a model as matrices of true weights, whole or sampled. Reads model values.

Whole ones are for models that are known to be small (``evaluation``). A sample is what describes a
layer of any size in bounded memory: blocks of rows, evenly spaced, the same of every layer of that
shape.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.layer_values import ModelValues
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.weights.dtypes import numpy_dtype, widen
from ws_pipeline.weights.layer_matrix import LayerMatrix

MAX_SAMPLE = 2**22
"""Weights of a layer that are looked at: 32 MB a copy, 0.8 CPU-s of singular values, norms and
products on a Zen 4 core; 0.5 s per 10 M weights of 4096 x 4096 layers, 0.04 s of a model with a
vocabulary of 128,000."""

MAX_BLOCKS = 1_024
"""Runs of rows that a sample is read in."""


def read_matrices(values: ModelValues, layers: Sequence[TokenLayer]) -> Iterator[LayerMatrix]:
    """Yield a model's layers; one is held at a time."""
    for layer in layers:
        matrix = _read(values, layer, 0, layer.num_values).reshape(layer.rows, layer.cols)
        yield LayerMatrix(name=layer.name, role=layer.role, values=matrix)


def sample_matrices(
    values: ModelValues, layers: Sequence[TokenLayer], *, most: int = MAX_SAMPLE
) -> Iterator[LayerMatrix]:
    """Yield a model's layers, of those beyond ``most`` weights only some rows; float32 numbers.

    A row that is longer than ``most`` is cut off. Weights are rounded to float32 first, as the
    backbone sees them, so that a shard and a file give the same numbers.
    """
    for layer in layers:
        cols = min(layer.cols, most)
        runs = plan_sample(layer.rows, layer.cols, most)
        parts = [
            _read(values, layer, start * layer.cols, (stop - start - 1) * layer.cols + cols)
            for start, stop in runs
        ]
        with np.errstate(over="ignore"):
            matrix = np.concatenate(parts).astype(np.float32).astype(np.float64)
        yield LayerMatrix(name=layer.name, role=layer.role, values=matrix.reshape(-1, cols))


def plan_sample(rows: int, cols: int, most: int) -> list[tuple[int, int]]:
    """Return the runs of rows [start, stop) of a sample: all rows, or at most ``most`` weights."""
    wanted = max(1, most // max(cols, 1))
    if rows <= wanted:
        return [(0, rows)]
    num_runs = min(MAX_BLOCKS, wanted)
    length = wanted // num_runs
    starts = np.linspace(0, rows - length, num_runs).astype(np.int64)
    return [(int(start), int(start) + length) for start in starts]


def _read(values: ModelValues, layer: TokenLayer, first: int, count: int) -> NDArray[np.float64]:
    """Return true weights of a layer, ``(count,)``, from its ``first``-th on."""
    raw = np.empty(count, dtype=numpy_dtype(layer.dtype))
    out = memoryview(raw.view(np.uint8).data)
    values.read_into(DTYPES.index(layer.dtype), layer.offset + first, out)
    return np.asarray(np.ldexp(widen(raw).astype(np.float64), layer.scale_exponent))
