"""All weights of a model as its features, where models are small and alike. Pure; no I/O."""

import numpy as np
import polars as pl

from ws_pipeline.evaluation.features import FLAT_WEIGHTS, FeatureTable
from ws_pipeline.evaluation.model_weights import ReadLayers

MAX_FLAT = 262_144
"""Weights beyond which a model is not its own feature vector: 2 MB a model."""


def flat_weights(corpus: pl.DataFrame, read_layers: ReadLayers) -> FeatureTable | None:
    """Return all weights of models of equal shapes; None for others or beyond `MAX_FLAT`."""
    plan = (pl.element().struct.field(name) for name in ("name", "rows", "cols"))
    plans = corpus.select(
        pl.col("layers").list.eval(pl.concat_str(plan, separator=" ")).alias("plan")
    )
    num_params = corpus["num_values"].unique()
    if not len(corpus) or plans.n_unique() > 1 or len(num_params) > 1 or num_params[0] > MAX_FLAT:
        return None
    rows = corpus.select("shard_sha256", "layers").iter_rows(named=True)
    values = np.array([np.concatenate([m.values.ravel() for m in read_layers(r)]) for r in rows])
    return FeatureTable(
        name=FLAT_WEIGHTS, values=values, available=np.asarray(np.isfinite(values).all(axis=1))
    )
