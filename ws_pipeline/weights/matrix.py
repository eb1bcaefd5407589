"""A layer's tensors as one matrix [W|b] of shape (output, input + 1), and back. No I/O.

``join_matrix`` and ``split_matrix`` are exact inverses for every dtype: values are moved, never
computed with. Not here: which tensors belong together (``plan``).
"""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.roles import CONVOLUTIONS, MATRICES, output_axis


def join_matrix(
    layer: Layer, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    """Return the matrix of a layer, ``(rows, cols)`` or with a bias ``(rows, cols + 1)``.

    May share memory with ``weight``.
    """
    matrix = np.moveaxis(weight, _output_axis(layer), 0) if weight.ndim else weight
    matrix = matrix.reshape(layer.rows, layer.cols)
    if bias is None:
        return matrix
    joined = np.empty((layer.rows, layer.cols + 1), dtype=weight.dtype)
    joined[:, :-1] = matrix
    joined[:, -1] = bias
    return joined


def output_geometry(layer: Layer) -> tuple[int, int, int]:
    """Return (before, rows, after): the stored weight is that array, and rows are its outputs.

    Row r of the layer's matrix is ``weight.reshape(before, rows, after)[:, r, :]``; where
    ``before`` is 1, the matrix lies in the file as it is.
    """
    axis = _output_axis(layer)
    if axis == 0:
        return 1, layer.rows, layer.cols
    return prod(layer.shape[:axis]), layer.shape[axis], prod(layer.shape[axis + 1 :])


def split_matrix(
    layer: Layer, matrix: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return (weight in its stored shape, bias or None); both contiguous, may share memory."""
    bias = None
    if layer.bias_name:
        bias = np.ascontiguousarray(matrix[:, -1])
        matrix = matrix[:, :-1]
    if not layer.shape:
        return np.ascontiguousarray(matrix).reshape(()), bias
    axis = _output_axis(layer)
    moved_shape = (layer.shape[axis], *layer.shape[:axis], *layer.shape[axis + 1 :])
    if axis == 0:
        return np.ascontiguousarray(matrix).reshape(layer.shape), bias
    weight = np.moveaxis(matrix.reshape(moved_shape), 0, axis)
    return np.ascontiguousarray(weight), bias


def _output_axis(layer: Layer) -> int:
    if not layer.transposed:
        return 0
    if layer.role in CONVOLUTIONS or layer.role in MATRICES:
        return output_axis(layer.role, len(layer.shape), transposed=True)
    return len(layer.shape) - 1
