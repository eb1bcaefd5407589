"""A layer's scaled matrix [W|b] as successive blocks of bytes, in reused memory. Does I/O.

Reading, scaling, turning the output axis to the front and adding the bias column happen in blocks
that stay in a core's cache. Only a transposed layer (GPT-2's Conv1D) is read in slabs of
SLAB_BYTES, since its rows lie across the file. Not here: which layer comes when (``shard_format``).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import numpy_dtype, widen
from ws_pipeline.weights.matrix import output_geometry
from ws_pipeline.weights.normalization import is_scaling_exact, scale_in_place, scale_layer
from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.values import CHUNK_BYTES, TensorValues

SLAB_BYTES = 64 * 2**20
"""How much of a transposed tensor is in memory at a time."""

STRIPE_BYTES = 2**19
"""How much of a slab is turned at a time: it is read and written within the second-level cache,
which takes 1.6 ns per number on a Zen 4 core; whole matrices take 4."""

MIN_STRIPE_ROWS = 16
"""One cache line of float32: a narrower stripe would fetch each line several times."""

Block = npt.NDArray[Any]


def find_exact_exponent(
    checkpoint: Checkpoint, layer: Layer, exponent: int, low: float, high: float
) -> int:
    """Return ``exponent`` if the whole layer can be scaled by it without losing a bit, else 0.

    Args:
        checkpoint: The model.
        layer: A tokenised layer.
        exponent: The wanted one.
        low: Smallest weight, bias not counted.
        high: Largest weight, bias not counted.
    """
    largest = max(abs(low), abs(high))
    if layer.bias_name:
        largest = max(largest, float(np.abs(widen(checkpoint.read_flat(layer.bias_name))).max()))
    if is_scaling_exact(numpy_dtype(layer.dtype), exponent, largest):
        return exponent
    names = [layer.name, layer.bias_name] if layer.bias_name else [layer.name]
    for name in names:
        for chunk in TensorValues(checkpoint, name).chunks():
            if scale_layer(chunk, exponent)[1] != exponent:
                return 0
    return exponent


def scaled_blocks(checkpoint: Checkpoint, layer: Layer, exponent: int) -> Iterator[Block]:
    """Yield the layer's matrix times ``2**-exponent``, row by row, as contiguous arrays.

    Each is valid until the next is taken.
    """
    if output_geometry(layer)[0] > 1:
        return _transposed_blocks(checkpoint, layer, exponent)
    if layer.bias_name:
        return _row_blocks(checkpoint, layer, exponent)
    return _flat_blocks(checkpoint, layer, exponent)


def _flat_blocks(checkpoint: Checkpoint, layer: Layer, exponent: int) -> Iterator[Block]:
    """Yield pieces of a layer that lies in the file as its matrix does."""
    for block in TensorValues(checkpoint, layer.name).chunks():
        scale_in_place(block, exponent)
        yield block


def _row_blocks(checkpoint: Checkpoint, layer: Layer, exponent: int) -> Iterator[Block]:
    """Yield rows of a layer that lies in the file as its matrix does, but for the bias."""
    dtype, bits = _dtypes(layer)
    step = min(layer.rows, max(1, CHUNK_BYTES // (dtype.itemsize * layer.matrix_cols)))
    bias = _read_bias(checkpoint, layer, exponent)
    weights = np.empty(step * layer.cols, bits)
    joined = np.empty((step, layer.matrix_cols), bits)
    for row in range(0, layer.rows, step):
        num_rows = min(step, layer.rows - row)
        block = weights[: num_rows * layer.cols]
        checkpoint.read_into(layer.name, row * layer.cols, block)
        scale_in_place(block.view(dtype), exponent)
        joined[:num_rows, :-1] = block.reshape(num_rows, layer.cols)
        joined[:num_rows, -1] = bias[row : row + num_rows]
        yield joined[:num_rows]


def _transposed_blocks(checkpoint: Checkpoint, layer: Layer, exponent: int) -> Iterator[Block]:
    """Yield stripes of a layer whose outputs are not the first axis of its stored weight."""
    before, _, after = output_geometry(layer)
    dtype, bits = _dtypes(layer)
    rows_that_fit = STRIPE_BYTES // (dtype.itemsize * layer.cols)
    step = min(layer.rows, max(MIN_STRIPE_ROWS, rows_that_fit))
    bias = _read_bias(checkpoint, layer, exponent) if layer.bias_name else None
    stripe = np.empty(before * step * after, bits)
    joined = np.empty((step, layer.matrix_cols), bits)
    row = 0
    for slab in _read_slabs(checkpoint, layer, step):
        for start in range(0, slab.shape[1], step):
            num_rows = min(step, slab.shape[1] - start)
            flat = stripe[: before * num_rows * after]
            part = flat.reshape(before, num_rows, after)
            part[...] = slab[:, start : start + num_rows]
            scale_in_place(flat.view(dtype), exponent)
            block = joined[:num_rows]
            turned = block[:, : layer.cols].reshape(num_rows, before, after)
            turned[...] = part.transpose(1, 0, 2)
            if bias is not None:
                block[:, -1] = bias[row : row + num_rows]
            row += num_rows
            yield block


def _read_slabs(checkpoint: Checkpoint, layer: Layer, step: int) -> Iterator[Block]:
    """Yield the weight, ``(before, some rows, after)``, in multiples of ``step`` rows."""
    before, rows, after = output_geometry(layer)
    dtype, bits = _dtypes(layer)
    width = step * max(1, SLAB_BYTES // (dtype.itemsize * layer.cols * step))
    memory = np.empty(before * min(width, rows) * after, bits)
    for row in range(0, rows, width):
        run = min(width, rows - row) * after
        slab = memory[: before * run].reshape(before, run)
        if width >= rows:
            checkpoint.read_into(layer.name, 0, slab.reshape(-1))
        else:
            starts = [(index * rows + row) * after for index in range(before)]
            checkpoint.read_runs(layer.name, starts, slab)
        yield slab.reshape(before, -1, after)


def _read_bias(checkpoint: Checkpoint, layer: Layer, exponent: int) -> Block:
    bias = checkpoint.read_flat(layer.bias_name)
    scale_in_place(bias, exponent)
    return bias.view(_dtypes(layer)[1])


def _dtypes(layer: Layer) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the layer's dtype, to compute in, and the integers of its size, to move.

    numpy moves bfloat16 and the 8-bit floats one by one.
    """
    dtype = numpy_dtype(layer.dtype)
    return dtype, np.dtype(f"u{dtype.itemsize}")
