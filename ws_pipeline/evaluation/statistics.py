"""s(W): the plain layer statistics that a learned representation has to beat. Pure; no I/O.

Mean, standard deviation and the 1/25/50/75/99 % quantiles of every layer's weights and of its
biases. The statistics are computed where weights are read (weights/layers) and only arranged here:

* models of one plan (same layers by name): concatenated layer by layer, as in the papers;
* models of many plans: pooled into one size: mean, std, min and max over layers, the first and the
  last layer, and the mean over the layers of each role.

Source: Unterthiner et al., Predicting Neural Network Accuracy from Weights, arXiv 2002.11448;
SANE, arXiv 2406.09997, section 4. The pooled form is ours: the papers stay within one architecture.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.errors import Reason
from ws_pipeline.evaluation.features import STATISTICS, FeatureTable

_MOMENTS = ("mean", "std", "q01", "q25", "q50", "q75", "q99")
STATISTIC_NAMES = tuple(f"{part}_{moment}" for part in ("w", "b") for moment in _MOMENTS)
"""Fourteen numbers per layer; those of the bias are null where there is none."""

TOKENISED = "tokenised"


def pooled_statistics(corpus: pl.DataFrame, layers: pl.DataFrame) -> FeatureTable:
    """Return s(W) of one size for any architecture, in the corpus' order."""
    table = layer_statistics(corpus, layers)
    stats = [pl.col(name) for name in STATISTIC_NAMES]
    pooled = table.group_by("model", maintain_order=True).agg(
        *(stat.mean().name.suffix(":mean") for stat in stats),
        *(stat.std(ddof=0).name.suffix(":std") for stat in stats),
        *(stat.min().name.suffix(":min") for stat in stats),
        *(stat.max().name.suffix(":max") for stat in stats),
        *(stat.first().name.suffix(":first") for stat in stats),
        *(stat.last().name.suffix(":last") for stat in stats),
    )
    by_role = (
        table.group_by("model", "role", maintain_order=True)
        .agg(stat.mean() for stat in stats)
        .pivot(on="role", index="model", values=list(STATISTIC_NAMES))
    )
    joined = (
        pl.DataFrame({"model": np.arange(len(corpus), dtype=np.int64)})
        .join(pooled, on="model", how="left", maintain_order="left")
        .join(by_role, on="model", how="left", maintain_order="left")
    )
    values = joined.drop("model").cast(pl.Float64).to_numpy().astype(np.float64)
    return _statistics_table(corpus, table, values)


def concatenated_statistics(corpus: pl.DataFrame, layers: pl.DataFrame) -> FeatureTable | None:
    """Return s(W) layer by layer, or None when the models' plans are not equal.

    Returns:
        Values of shape ``(models, layers * 14)``; models without statistics are not available.
    """
    table = layer_statistics(corpus, layers)
    plans = table.group_by("model", maintain_order=True).agg(pl.col("name"))
    if plans["name"].n_unique() != 1:
        return None
    num_layers = len(plans["name"][0])
    values = np.full((len(corpus), num_layers * len(STATISTIC_NAMES)), np.nan)
    flat = table.select(STATISTIC_NAMES).to_numpy().astype(np.float64)
    values[plans["model"].to_numpy()] = flat.reshape(len(plans), -1)
    return _statistics_table(corpus, table, values)


def family_statistics(corpus: pl.DataFrame, layers: pl.DataFrame) -> FeatureTable:
    """Return the strongest s(W) that fits: concatenated where plans are equal, else pooled."""
    return concatenated_statistics(corpus, layers) or pooled_statistics(corpus, layers)


def layer_statistics(corpus: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """Return one row per tokenised layer: model (row of the corpus), name, role, statistics.

    Rows are in the order of models and of layers within them. What is not finite is null.
    """
    models = corpus.select("hub_id", model=pl.int_range(pl.len(), dtype=pl.Int64))
    fields = ("index", "name", "role", "treatment", *STATISTIC_NAMES)
    finite = (
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).cast(pl.Float64).alias(name)
        for name in STATISTIC_NAMES
    )
    return (
        layers.unique("hub_id", keep="first")
        .join(models, on="hub_id")
        .select("model", "layers")
        .explode("layers")
        .drop_nulls("layers")
        .select("model", pl.col("layers").struct.field(*fields))
        .filter(pl.col("treatment") == TOKENISED)
        .sort("model", "index")
        .select("model", "name", "role", *finite)
    )


def _statistics_table(
    corpus: pl.DataFrame, table: pl.DataFrame, values: NDArray[np.float64]
) -> FeatureTable:
    """Return values as features; a model without any layer's statistics is not available."""
    available = np.zeros(len(corpus), dtype=bool)
    available[table["model"].unique().to_numpy()] = True
    return FeatureTable(
        name=STATISTICS,
        values=values,
        available=available,
        missing_reason=Reason.NO_STATISTICS,
    )
