"""What a permutation does to a layer's matrix [W|b]: an order of its rows and one of its columns.

A matrix's rows are the weight's output axis, its columns all other axes and then the bias, so any
permutation of axes is one index per row and one per column, and a window of a permuted layer can be
read from the layer as it is stored. No I/O. Not here: the matrix itself (``weights.matrix``).
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.roles import CONVOLUTIONS, MATRICES, output_axis
from ws_pipeline.weights.symmetry.permutation import Indices, Permutation


class MatrixOrder(NamedTuple):
    """Where rows ``(rows,)`` and columns ``(cols,)``, bias column included, come from."""

    rows: Indices | None
    cols: Indices | None


def order_matrix(layer: Layer, permutation: Permutation) -> MatrixOrder:
    """Return the order of a layer's matrix; None for rows or columns that stay.

    Raises:
        WeightsError: If the bias would not follow its rows.
    """
    axes = list(range(len(layer.shape)))
    rank = len(axes)
    first = 0
    if layer.role in CONVOLUTIONS | MATRICES:
        first = output_axis(layer.role, rank, transposed=layer.transposed)
    elif layer.transposed:
        first = rank - 1
    if axes:
        axes.insert(0, axes.pop(first))
    split = next(k for k in range(rank + 1) if prod(layer.shape[a] for a in axes[:k]) == layer.rows)
    maps = {
        axis: permutation[layer.name, axis] for axis in axes if (layer.name, axis) in permutation
    }
    rows = _combine(layer.shape, axes[:split], maps)
    cols = _combine(layer.shape, axes[split:], maps)
    if layer.bias_name:
        _check_bias(layer, rows, permutation.get((layer.bias_name, 0)))
        cols = None if cols is None else np.append(cols, layer.cols)
    return MatrixOrder(rows, cols)


def shapes_of_layers(layers: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a plan, biases included."""
    shapes = {layer.name: layer.shape for layer in layers}
    return shapes | {layer.bias_name: (layer.rows,) for layer in layers if layer.bias_name}


def _check_bias(layer: Layer, rows: Indices | None, bias: Indices | None) -> None:
    still = np.arange(layer.rows)
    if not np.array_equal(still if rows is None else rows, still if bias is None else bias):
        raise WeightsError(
            f"The bias {layer.bias_name} must be permuted like the rows of {layer.name}.",
            reason=Reason.INTERNAL,
        )


def _combine(
    shape: Sequence[int], axes: Sequence[int], maps: Mapping[int, Indices]
) -> Indices | None:
    """Return the flat order of several axes; None where no map touches them."""
    if not any(axis in maps for axis in axes):
        return None
    sizes = [shape[axis] for axis in axes]
    order = np.arange(prod(sizes)).reshape(sizes)
    for place, axis in enumerate(axes):
        if axis in maps:
            order = np.take(order, maps[axis], axis=place)
    return order.reshape(-1)
