"""The weights of corpus models as matrices, layer by layer. Reads shards.

What controls and lineage baselines look at: rows are outputs, columns inputs with the bias last.
The way back, :func:`matrix_tokens`, gives altered matrices to a backbone as a model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_matrices import read_matrices
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.manifests import read_token_layers
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.layer_matrix import LayerMatrix

Row = Mapping[str, Any]
"""A row of `corpus/splits`."""


ReadLayers = Callable[[Row], Iterator[LayerMatrix]]
"""Yields the layers of a corpus row, in their order."""


def layer_reader(store: Store) -> ReadLayers:
    """Return a function that yields the layers of a corpus row from its shard."""

    def read(row: Row) -> Iterator[LayerMatrix]:
        model = ModelTokens.open(store, row, TokenLayout())
        return read_matrices(model.values, read_token_layers(row))

    return read


class MatrixValues:
    """Matrices as the stored values of a model, one float32 run.

    Args:
        layers: In order.
    """

    def __init__(self, layers: Sequence[LayerMatrix]) -> None:
        flat = [layer.values.astype(np.float32).ravel() for layer in layers]
        self._values = np.concatenate([np.zeros(0, dtype=np.float32), *flat])

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:  # noqa: ARG002 - F32
        """See :class:`~ws_pipeline.tokens.layer_values.ModelValues`."""
        target = np.frombuffer(out, dtype=np.float32)
        target[:] = self._values[start : start + len(target)]


def matrix_tokens(
    layers: Sequence[LayerMatrix], like: Sequence[TokenLayer], layout: TokenLayout
) -> ModelTokens:
    """Return matrices as a model that a backbone reads: the inverse of :func:`read_matrices`.

    Args:
        layers: Of the same shapes as ``like``; rounded to float32.
        like: Names, roles and places; means and standard deviations are measured anew.
        layout: How layers are cut.
    """
    offsets = np.cumsum([0, *(layer.values.size for layer in layers)])
    records = [
        replace(
            old,
            dtype="F32",
            offset=int(offset),
            scale_exponent=0,
            mean=float(layer.values.mean()),
            std=float(layer.values.std()),
        )
        for layer, old, offset in zip(layers, like, offsets[:-1], strict=True)
    ]
    return ModelTokens(records, MatrixValues(layers), layout)
