"""Which features stand beside each other in a property evaluation. Pure; no I/O."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.features import (
    STATISTICS,
    UNTRAINED,
    FeatureTable,
    embedding_features,
    family_features,
    hyper_parameter_features,
    join_features,
    mean_features,
    shape_features,
)
from ws_pipeline.evaluation.targets import MISSING_SCHEMA, CardTruth

BoolArray = NDArray[np.bool_]


def build_features(
    corpus: pl.DataFrame,
    truth: CardTruth,
    embeddings: Mapping[str, pl.DataFrame],
    statistics: FeatureTable,
) -> tuple[FeatureTable, ...]:
    """Return controls first, then each representation alone and joined with s(W)."""
    controls = [
        mean_features(len(corpus)),
        family_features(corpus),
        shape_features(corpus),
        hyper_parameter_features(corpus, truth.factors, with_epoch=False),
        hyper_parameter_features(corpus, truth.factors),
        statistics,
    ]
    ordered = sorted(embeddings, key=lambda name: name != UNTRAINED)  # controls come first
    learned = [embedding_features(name, corpus, embeddings[name]) for name in ordered]
    joined = [join_features(table, statistics) for table in learned if table.name != UNTRAINED]
    return (*controls, *learned, *joined)


def replace_statistics(
    tables: tuple[FeatureTable, ...], statistics: FeatureTable, members: BoolArray
) -> tuple[FeatureTable, ...]:
    """Return the tables with s(W) exchanged for a family's own, spread over the corpus' rows."""
    values = np.full((len(members), statistics.values.shape[1]), np.nan)
    values[members] = statistics.values
    available = np.zeros(len(members), dtype=bool)
    available[members] = statistics.available
    own = replace(statistics, values=values, available=available)
    by_name = {table.name: table for table in tables} | {own.name: own}
    for name in by_name:
        base = name.removesuffix(f"+{STATISTICS}")
        if base != name:
            by_name[name] = join_features(by_name[base], own)
    return tuple(by_name.values())


def missing_features(table: FeatureTable) -> pl.DataFrame:
    """Return how many models lack a table's features, for every target."""
    num_models = int((~table.available).sum())
    rows = [(f"({table.name})", table.missing_reason, num_models)]
    if table.missing_reason is None or num_models == 0 or "+" in table.name:
        rows = []
    return pl.DataFrame(rows, schema=MISSING_SCHEMA, orient="row")
