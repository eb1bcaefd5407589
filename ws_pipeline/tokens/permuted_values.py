"""The stored numbers of a model with its hidden units in another order, read from where they lie.

Stands in for a model's stored values, so that windows of an equal model are served that was never
written: rows are fetched from where they come from, columns reordered, in the storage dtype. The
layer table (moments, exponents, masks, positions) is that of the model itself, since a permutation
moves values within their layers only. Does I/O through the values it wraps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.tokens.layer_values import ModelValues
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.weights.dtypes import ELEMENT_TYPES
from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.symmetry.matrix_order import MatrixOrder, order_matrix
from ws_pipeline.weights.symmetry.permutation import Permutation

WHOLE_LAYER_FACTOR = 8
"""A layer with at most this many times the rows asked for is read as a whole: reads of single rows
cost some microseconds each, a value less than a nanosecond."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PermutedLayer:
    """One layer's place among the stored values, and the order of its matrix.

    Attributes:
        dtype: Its number.
        offset: First value of the layer among those of its dtype.
        cols: Bias column included.
    """

    dtype: int
    item_bytes: int
    offset: int
    rows: int
    cols: int
    order: MatrixOrder


def permute_layers(
    token_layers: Sequence[TokenLayer],
    layers: Sequence[Layer],
    permutation: Permutation,
    *,
    dtypes: Sequence[str],
) -> list[PermutedLayer]:
    """Return what :class:`PermutedValues` needs to know of a model.

    Args:
        token_layers: The model's.
        layers: Its plan.
        permutation: Of its tensors.
        dtypes: Names of the dtypes in the order of their numbers.
    """
    plan = {layer.name: layer for layer in layers}
    return [
        PermutedLayer(
            dtype=dtypes.index(layer.dtype),
            item_bytes=ELEMENT_TYPES[layer.dtype].bits // 8,
            offset=layer.offset,
            rows=layer.rows,
            cols=layer.cols,
            order=order_matrix(plan[layer.name], permutation),
        )
        for layer in token_layers
    ]


class PermutedValues:
    """Stored values of a model under a permutation.

    Args:
        values: Of the model as it is stored.
        layers: All its layers.
    """

    def __init__(self, values: ModelValues, layers: Sequence[PermutedLayer]) -> None:
        self._values = values
        self._layers: dict[int, list[PermutedLayer]] = {}
        for layer in sorted(layers, key=lambda layer: layer.offset):
            if layer.rows * layer.cols:
                self._layers.setdefault(layer.dtype, []).append(layer)
        self._offsets = {
            dtype: np.array([layer.offset for layer in found])
            for dtype, found in self._layers.items()
        }

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:
        """See :class:`ModelValues`."""
        layers, offsets = self._layers[dtype], self._offsets[dtype]
        target = np.frombuffer(out, dtype=f"u{layers[0].item_bytes}")
        done = 0
        while done < len(target):
            layer = layers[int(np.searchsorted(offsets, start + done, side="right")) - 1]
            first = start + done - layer.offset
            count = min(layer.rows * layer.cols - first, len(target) - done)
            target[done : done + count] = self._read_layer(layer, first, count)
            done += count

    def _read_layer(self, layer: PermutedLayer, start: int, count: int) -> npt.NDArray[Any]:
        """Read values of the permuted matrix, row by row."""
        order = layer.order
        if order.rows is None and order.cols is None:
            return self._read(layer, start, count)
        first, last = start // layer.cols, -(-(start + count) // layer.cols)
        if order.rows is None:
            flat = self._read(layer, first * layer.cols, (last - first) * layer.cols)
            matrix = flat.reshape(last - first, layer.cols)
        else:
            matrix = self._read_rows(layer, order.rows[first:last])
        if order.cols is not None:
            matrix = np.take(matrix, order.cols, axis=1, mode="clip")  # clip: no check per value
        begin = start - first * layer.cols
        return matrix.reshape(-1)[begin : begin + count]

    def _read_rows(self, layer: PermutedLayer, rows: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """Read rows of the stored matrix in the order given, ``(rows, cols)``."""
        if layer.rows <= WHOLE_LAYER_FACTOR * len(rows):
            whole = self._read(layer, 0, layer.rows * layer.cols)
            return whole.reshape(layer.rows, layer.cols)[rows]
        parts = [self._read(layer, row * layer.cols, layer.cols) for row in rows.tolist()]
        return np.stack(parts)

    def _read(self, layer: PermutedLayer, start: int, count: int) -> npt.NDArray[Any]:
        values = np.empty(count, dtype=f"u{layer.item_bytes}")
        self._values.read_into(layer.dtype, layer.offset + start, values.view(np.uint8).data)
        return values
