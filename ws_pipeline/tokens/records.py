"""Tokenised layers as rows: the TOKEN_LAYER struct of tables and manifests. No I/O.

Where a layer lies in its shard follows from the plan by arithmetic (:func:`derive_token_layers`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ws_pipeline.weights.plan import Layer, Treatment


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLayer:
    """One tokenised layer of a shard.

    Attributes:
        name: The weight tensor.
        block: Ordinal of its numbered block; -1 outside.
        depth: Place in the plan, in [0, 1].
        dtype: Which ``values.<dtype>`` tensor of the shard holds it.
        offset: First value of the layer in that tensor, in elements.
        rows: Outputs.
        cols: Inputs, plus one for a bias.
        scale_exponent: The true weights are the stored values times two to this power.
        mean: Of the true weights, bias included.
        std: Of the true weights, bias included.
    """

    name: str
    role: str
    block: int
    depth: float
    dtype: str
    offset: int
    rows: int
    cols: int
    scale_exponent: int
    mean: float
    std: float

    @property
    def num_values(self) -> int:
        """Numbers of the layer."""
        return self.rows * self.cols


TOKEN_LAYER_FIELDS: dict[str, pl.DataType] = {
    "name": pl.String(),
    "role": pl.String(),
    "block": pl.Int32(),
    "depth": pl.Float32(),
    "dtype": pl.String(),
    "offset": pl.Int64(),
    "rows": pl.Int64(),
    "cols": pl.Int64(),
    "scale_exponent": pl.Int32(),
    "mean": pl.Float64(),
    "std": pl.Float64(),
}
TOKEN_LAYER_STRUCT = pl.Struct(TOKEN_LAYER_FIELDS)


def derive_token_layers(records: Iterable[Mapping[str, Any]]) -> tuple[TokenLayer, ...]:
    """Return the tokenised layers of a plan, each with its place in the shard.

    Args:
        records: All layers in plan order, as :func:`~ws_pipeline.weights.records.layer_to_record`
            gives them, with statistics.
    """
    offsets: dict[str, int] = {}
    placed: list[TokenLayer] = []
    for record in records:
        if record["treatment"] != Treatment.TOKENISED:
            continue
        dtype = record["dtype"]
        layer = TokenLayer(
            **{name: record[name] for name in ("name", "role", "block", "depth", "rows")},
            dtype=dtype,
            offset=offsets.get(dtype, 0),
            cols=record["cols"] + (record["bias_name"] != ""),
            scale_exponent=0,
            mean=record["mean"],
            std=record["std"],
        )
        offsets[dtype] = layer.offset + layer.num_values
        placed.append(layer)
    return tuple(placed)


def join_float32_layers(
    layers: Iterable[Layer], moments: Iterable[tuple[float, float]]
) -> list[TokenLayer]:
    """Return tokenised layers that lie in memory one after the other, all in float32.

    Args:
        layers: The tokenised layers of a plan, in its order.
        moments: (mean, std) of each.
    """
    joined: list[TokenLayer] = []
    offset = 0
    for layer, (mean, std) in zip(layers, moments, strict=True):
        joined.append(
            TokenLayer(
                name=layer.name,
                role=str(layer.role),
                block=layer.block,
                depth=layer.depth,
                dtype="F32",
                offset=offset,
                rows=layer.rows,
                cols=layer.matrix_cols,
                scale_exponent=0,
                mean=mean,
                std=std,
            )
        )
        offset += joined[-1].num_values
    return joined


def token_layer_to_record(layer: TokenLayer) -> dict[str, Any]:
    """Return the layer as a JSON-able dict."""
    # Ten times as fast as asdict, which copies every value deeply.
    return {name: getattr(layer, name) for name in TOKEN_LAYER_FIELDS}


def token_layer_from_record(record: Mapping[str, Any]) -> TokenLayer:
    """Return the layer of a record; other fields are ignored."""
    return TokenLayer(**{name: record[name] for name in TOKEN_LAYER_FIELDS})
