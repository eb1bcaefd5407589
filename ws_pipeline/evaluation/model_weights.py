"""The weights of corpus models as matrices, layer by layer. Reads shards; one layer at a time.

What controls and lineage baselines look at: rows are outputs, columns inputs with the bias last. A
matrix without the store, for tests and for altered copies, is just a :class:`LayerMatrix`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.manifests import read_token_layers
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.dtypes import numpy_dtype, widen

Row = Mapping[str, Any]
"""A row of `corpus/splits`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerMatrix:
    """One tokenised layer.

    Attributes:
        name: The weight tensor.
        role: What it is.
        values: True weights, ``(rows, cols)`` float64, the bias as last column.
    """

    name: str
    role: str
    values: NDArray[np.float64]


ReadLayers = Callable[[Row], Iterator[LayerMatrix]]
"""Yields the layers of a corpus row, in their order."""


def layer_reader(store: Store) -> ReadLayers:
    """Return a function that yields the layers of a corpus row from its shard."""
    layout = TokenLayout()

    def read(row: Row) -> Iterator[LayerMatrix]:
        model = ModelTokens.open(store, row, layout)
        for layer in read_token_layers(row):
            raw = np.empty(layer.num_values, dtype=numpy_dtype(layer.dtype))
            view = memoryview(raw.view(np.uint8).data)
            model.values.read_into(DTYPES.index(layer.dtype), layer.offset, view)
            values = widen(raw).astype(np.float64).reshape(layer.rows, layer.cols)
            yield LayerMatrix(
                name=layer.name, role=layer.role, values=np.ldexp(values, layer.scale_exponent)
            )

    return read
