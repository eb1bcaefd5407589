"""Layers as rows: the LAYER struct of tables and manifests, and back to :class:`Layer`. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import polars as pl

from ws_pipeline.weights.plan import Layer, Treatment
from ws_pipeline.weights.role_rules import Role
from ws_pipeline.weights.statistics import STATISTICS_FIELDS, LayerStatistics

LAYER_FIELDS: dict[str, pl.DataType] = {
    "index": pl.Int32(),
    "name": pl.String(),
    "bias_name": pl.String(),
    "role": pl.String(),
    "treatment": pl.String(),
    "why": pl.String(),
    "dtype": pl.String(),
    "block": pl.Int32(),
    "depth": pl.Float32(),
    "shape": pl.List(pl.Int64()),
    "rows": pl.Int64(),
    "cols": pl.Int64(),
    "transposed": pl.Boolean(),
    "num_params": pl.Int64(),
    "num_bytes": pl.Int64(),
    "tied_to": pl.String(),
}

LAYER_STRUCT = pl.Struct({**LAYER_FIELDS, **{name: pl.Float64() for name in STATISTICS_FIELDS}})
"""One layer of ``weights/layers``; the statistics are null where a layer is not tokenised."""


def layer_to_record(layer: Layer, statistics: LayerStatistics | None) -> dict[str, Any]:
    """Return the layer and its statistics as one JSON-able dict in LAYER_STRUCT's field order."""
    record: dict[str, Any] = {name: getattr(layer, name) for name in LAYER_FIELDS}
    record |= {
        "role": str(layer.role),
        "treatment": str(layer.treatment),
        "shape": list(layer.shape),
    }
    measured = {} if statistics is None else statistics.to_dict()
    return record | {name: measured.get(name) for name in STATISTICS_FIELDS}


def statistics_of_row(row: Sequence[float]) -> dict[str, float | None]:
    """Return the statistics of a record from numbers in STATISTICS_FIELDS' order, NaN for none."""
    return {
        name: None if number != number else number  # noqa: PLR0124 - only NaN differs from itself
        for name, number in zip(STATISTICS_FIELDS, row, strict=True)
    }


def statistics_from_record(record: Mapping[str, Any]) -> LayerStatistics | None:
    """Return the statistics of a record; None where a layer is not tokenised."""
    if record["std"] is None:
        return None
    return LayerStatistics(**{name: record[name] for name in STATISTICS_FIELDS})


def layer_from_record(record: Mapping[str, Any]) -> Layer:
    """Return the layer of a record; fields that a layer does not have are ignored."""
    values = {field.name: record[field.name] for field in fields(Layer)}
    values |= {
        "role": Role(record["role"]),
        "treatment": Treatment(record["treatment"]),
        "shape": tuple(record["shape"]),
    }
    return Layer(**values)
