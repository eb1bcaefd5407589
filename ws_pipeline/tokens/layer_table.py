"""The layers of many models as flat arrays, and where each of their tokens comes from. No I/O.

Everything a window needs besides its values is arithmetic over one row per layer: rows and columns
give its tokens, an offset and a dtype its values, an exponent and two moments its scale. A corpus
of 2,000 models with 200 layers each is 29 MB. Not here: which windows are drawn (``draws``), how
they are laid out in a batch (``window_plan``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ws_pipeline.arrays import NUM_SCALE_FEATURES
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.records import TOKEN_LAYER_FIELDS, TokenLayer
from ws_pipeline.weights.dtypes import ELEMENT_TYPES
from ws_pipeline.weights.normalization import log_std

DTYPES: tuple[str, ...] = tuple(name for name, kind in ELEMENT_TYPES.items() if kind.is_weight)
"""Dtypes that a layer's values can be stored in; a table holds an index into this."""

_CODES = {name: code for code, name in enumerate(DTYPES)}


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTable:
    """Layers of all models, one model after another; build it with a class method.

    Attributes:
        layout: How layers are cut.
        first_layers: First layer of each model, and one past the last of all; ``(models + 1,)``.
        rows: ``(layers,)``, as is every array below.
        cols: Bias column included.
        dtypes: Index into `DTYPES`.
        offsets: First value of the layer in its model's ``values.<dtype>``, in elements.
        exponents: True weights are the stored values times two to this power.
        scale: (mean, log std) of the true weights; float32 ``(layers, 2)``.
        run_lengths: Values of one run: a row if sliced, the layer if dense.
        tokens_per_run: Tokens of one run.
        first_tokens: First token of each layer, counted over all models, and one past the last;
            ``(layers + 1,)``.
    """

    layout: TokenLayout
    first_layers: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    dtypes: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    exponents: npt.NDArray[np.int64]
    scale: npt.NDArray[np.float32]
    run_lengths: npt.NDArray[np.int64]
    tokens_per_run: npt.NDArray[np.int64]
    first_tokens: npt.NDArray[np.int64]

    @classmethod
    def of_corpus(cls, rows: pl.DataFrame, layout: TokenLayout) -> "LayerTable":
        """Build the table of corpus rows (column ``layers``), a model for each row."""
        counts = rows["layers"].list.len().fill_null(0).to_numpy().astype(np.int64)
        layers = rows["layers"].explode().drop_nulls().struct.unnest()
        return cls._build(layout, counts, layers)

    @classmethod
    def of_model(cls, layers: Sequence[TokenLayer], layout: TokenLayout) -> "LayerTable":
        """Build the table of one model."""
        columns = {
            name: pl.Series([getattr(layer, name) for layer in layers], dtype=dtype)
            for name, dtype in TOKEN_LAYER_FIELDS.items()
        }
        return cls._build(layout, np.array([len(layers)]), pl.DataFrame(columns))

    @classmethod
    def join(cls, tables: Sequence["LayerTable"]) -> "LayerTable":
        """Put tables of one layout behind one another."""

        def joined(name: str) -> npt.NDArray[np.int64]:
            return np.concatenate([getattr(table, name) for table in tables])

        return cls(
            layout=tables[0].layout,
            first_layers=_starts(np.diff(t.first_layers) for t in tables),
            rows=joined("rows"),
            cols=joined("cols"),
            dtypes=joined("dtypes"),
            offsets=joined("offsets"),
            exponents=joined("exponents"),
            scale=np.concatenate([table.scale for table in tables]),
            run_lengths=joined("run_lengths"),
            tokens_per_run=joined("tokens_per_run"),
            first_tokens=_starts(np.diff(t.first_tokens) for t in tables),
        )

    @classmethod
    def _build(
        cls, layout: TokenLayout, counts: npt.NDArray[np.int64], layers: pl.DataFrame
    ) -> "LayerTable":
        def integers(name: str) -> npt.NDArray[np.int64]:
            return layers[name].to_numpy().astype(np.int64)

        rows, cols = integers("rows"), integers("cols")
        num_runs, run_lengths = (
            (rows, cols) if layout.kind == "sliced" else (np.ones_like(rows), rows * cols)
        )
        tokens_per_run = -(-run_lengths // layout.token_size)
        moments = zip(layers["mean"].to_list(), layers["std"].to_list(), strict=True)
        scale = np.array([(mean, log_std(std)) for mean, std in moments], dtype=np.float32)
        return cls(
            layout=layout,
            first_layers=_starts([counts]),
            rows=rows,
            cols=cols,
            dtypes=np.array([_CODES[name] for name in layers["dtype"]], dtype=np.int64),
            offsets=integers("offset"),
            exponents=integers("scale_exponent"),
            scale=scale.reshape(-1, NUM_SCALE_FEATURES),
            run_lengths=run_lengths,
            tokens_per_run=np.maximum(tokens_per_run, 1),
            first_tokens=_starts([num_runs * tokens_per_run]),
        )

    @property
    def num_models(self) -> int:
        """Models of the table."""
        return len(self.first_layers) - 1

    @property
    def model_starts(self) -> npt.NDArray[np.int64]:
        """First token of each model, counted over all, and one past the last."""
        starts: npt.NDArray[np.int64] = self.first_tokens[self.first_layers]
        return starts

    @property
    def num_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each model; ``(models,)``."""
        return np.diff(self.model_starts)

    def layer_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the layer of each token, counted over all models; empty layers have none."""
        found: npt.NDArray[np.int64] = np.searchsorted(self.first_tokens, tokens, side="right") - 1
        return found

    def value_of(
        self, layers: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return each token's first value within its layer.

        Args:
            layers: Layer of each token.
            places: Its place in the layer; one past the last token gives the layer's size.
        """
        run, chunk = np.divmod(places, self.tokens_per_run[layers])
        values: npt.NDArray[np.int64] = (
            run * self.run_lengths[layers] + chunk * self.layout.token_size
        )
        return values


def _starts(counts: Iterable[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return where each of the parts begins, and where the last ends."""
    return np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *counts]))
