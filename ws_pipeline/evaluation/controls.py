"""Which features stand beside each other in a property evaluation. Pure; no I/O."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.backbone.embedding_blocks import SPECTRA
from ws_pipeline.evaluation.features import (
    STATISTICS,
    STATISTICS_SPECTRA,
    FeatureTable,
    embedding_tables,
    family_features,
    hyper_parameter_features,
    is_control,
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
    """Return controls first, then each representation by blocks, whole and with s(W)."""
    controls = [
        mean_features(len(corpus)),
        family_features(corpus),
        shape_features(corpus),
        hyper_parameter_features(corpus, truth.factors, with_epoch=False),
        hyper_parameter_features(corpus, truth.factors),
        statistics,
    ]
    learned = embedding_tables(corpus, embeddings)
    controls += [
        join_features(statistics, table, name=STATISTICS_SPECTRA)
        for table in learned
        if table.name == SPECTRA
    ]
    tested = [table for table in learned if not is_control(table.name)]
    return (*controls, *learned, *(join_features(table, statistics) for table in tested))


def replace_statistics(
    tables: tuple[FeatureTable, ...], statistics: FeatureTable, members: BoolArray
) -> tuple[FeatureTable, ...]:
    """Return the tables with s(W) exchanged for a family's own, spread over the corpus' rows."""
    own = spread_table(statistics, members)
    by_name = {table.name: table for table in tables} | {own.name: own}
    for name in by_name:
        base = name.removesuffix(f"+{STATISTICS}")
        if base != name:
            by_name[name] = join_features(by_name[base], own)
    if STATISTICS_SPECTRA in by_name:
        by_name[STATISTICS_SPECTRA] = join_features(own, by_name[SPECTRA], name=STATISTICS_SPECTRA)
    return tuple(by_name.values())


def spread_table(table: FeatureTable, members: BoolArray) -> FeatureTable:
    """Return a table of some models as one of all; the others are not available."""
    values = np.full((len(members), table.values.shape[1]), np.nan)
    values[members] = table.values
    available = np.zeros(len(members), dtype=bool)
    available[members] = table.available
    return replace(table, values=values, available=available)


def missing_features(table: FeatureTable) -> pl.DataFrame:
    """Return how many models lack a table's features, for every target."""
    num_models = int((~table.available).sum())
    rows = [(f"({table.name})", table.missing_reason, num_models)]
    if table.missing_reason is None or num_models == 0 or "+" in table.name:
        rows = []
    return pl.DataFrame(rows, schema=MISSING_SCHEMA, orient="row")
