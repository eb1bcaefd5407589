"""The stored numbers of a model with its hidden units in another order, read from where they lie.

Stands in for a model's stored values, so that windows of an equal model are served that was never
written: rows are fetched from where they come from, columns reordered, in the storage dtype. The
layer table (moments, exponents, masks, positions) is that of the model itself, since a permutation
moves values within their layers only. Does I/O through the values it wraps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class PlacedLayer(NamedTuple):
    """One layer's place among the stored values.

    Attributes:
        plan: The layer as the checkpoint has it.
        offset: First value of the layer among those of its dtype.
        cols: Bias column included.
    """

    plan: Layer
    item_bytes: int
    offset: int
    rows: int
    cols: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerMap:
    """All layers of a model as they are stored, by the number of their dtype.

    Attributes:
        layers: In order.
        offsets: Of each of them.
    """

    layers: Mapping[int, Sequence[PlacedLayer]]
    offsets: Mapping[int, npt.NDArray[np.int64]]


def map_layers(
    token_layers: Sequence[TokenLayer], layers: Sequence[Layer], *, dtypes: Sequence[str]
) -> LayerMap:
    """Return what :class:`PermutedValues` needs to know of a model.

    Args:
        token_layers: The model's.
        layers: Its plan.
        dtypes: Names of the dtypes in the order of their numbers.
    """
    plan = {layer.name: layer for layer in layers}
    placed: dict[int, list[PlacedLayer]] = {}
    for layer in sorted(token_layers, key=lambda layer: layer.offset):
        if layer.num_values:
            item_bytes = ELEMENT_TYPES[layer.dtype].bits // 8
            place = (layer.offset, layer.rows, layer.cols)
            one = PlacedLayer(plan[layer.name], item_bytes, *place)
            placed.setdefault(dtypes.index(layer.dtype), []).append(one)
    offsets = {
        dtype: np.array([layer.offset for layer in found]) for dtype, found in placed.items()
    }
    return LayerMap(layers=placed, offsets=offsets)


class PermutedValues:
    """Stored values of a model under a permutation.

    A layer's order is worked out when it is first read: a window touches few of a model's layers.

    Args:
        values: Of the model as it is stored.
        placed: All its layers.
        permutation: Of its tensors.
    """

    def __init__(self, values: ModelValues, placed: LayerMap, permutation: Permutation) -> None:
        self._values = values
        self._layers = placed.layers
        self._offsets = placed.offsets
        self._permutation = permutation
        self._orders: dict[str, MatrixOrder] = {}

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:
        """See :class:`ModelValues`."""
        layers, offsets = self._layers[dtype], self._offsets[dtype]
        target = np.frombuffer(out, dtype=f"u{layers[0].item_bytes}")
        done = 0
        while done < len(target):
            layer = layers[int(np.searchsorted(offsets, start + done, side="right")) - 1]
            first = start + done - layer.offset
            count = min(layer.rows * layer.cols - first, len(target) - done)
            target[done : done + count] = self._read_layer(dtype, layer, first, count)
            done += count

    def list_stored(self, dtype: int, start: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield (start, count) of the stored values that a read takes whole layers of."""
        layers = self._layers[dtype]
        first = int(np.searchsorted(self._offsets[dtype], start, side="right")) - 1
        for layer in layers[first:]:
            if layer.offset >= start + count:
                break
            size = layer.rows * layer.cols
            if size <= WHOLE_LAYER_FACTOR * count:
                yield layer.offset, size

    def _read_layer(
        self, dtype: int, layer: PlacedLayer, start: int, count: int
    ) -> npt.NDArray[Any]:
        """Read values of the permuted matrix, row by row."""
        order = self._find_order(layer.plan)
        if order.rows is None and order.cols is None:
            return self._read(dtype, layer, start, count)
        first, last = start // layer.cols, -(-(start + count) // layer.cols)
        if order.rows is None:
            flat = self._read(dtype, layer, first * layer.cols, (last - first) * layer.cols)
            matrix = flat.reshape(last - first, layer.cols)
        else:
            matrix = self._read_rows(dtype, layer, order.rows[first:last])
        if order.cols is not None:
            matrix = np.take(matrix, order.cols, axis=1, mode="clip")  # clip: no check per value
        begin = start - first * layer.cols
        return matrix.reshape(-1)[begin : begin + count]

    def _find_order(self, layer: Layer) -> MatrixOrder:
        order = self._orders.get(layer.name)
        if order is None:
            order = self._orders[layer.name] = order_matrix(layer, self._permutation)
        return order

    def _read_rows(
        self, dtype: int, layer: PlacedLayer, rows: npt.NDArray[np.intp]
    ) -> npt.NDArray[Any]:
        """Read rows of the stored matrix in the order given, ``(rows, cols)``."""
        if layer.rows <= WHOLE_LAYER_FACTOR * len(rows):
            whole = self._read(dtype, layer, 0, layer.rows * layer.cols)
            return whole.reshape(layer.rows, layer.cols)[rows]
        parts = [self._read(dtype, layer, row * layer.cols, layer.cols) for row in rows.tolist()]
        return np.stack(parts)

    def _read(self, dtype: int, layer: PlacedLayer, start: int, count: int) -> npt.NDArray[Any]:
        values = np.empty(count, dtype=f"u{layer.item_bytes}")
        self._values.read_into(dtype, layer.offset + start, values.view(np.uint8).data)
        return values
