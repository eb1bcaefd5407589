"""How well weights survive encoding and decoding. Summaries over held-out models. Pure; no I/O.

The error of a layer is ``||w_hat - w||^2 / ||w - mean(w)||^2``: 1 is what predicting the layer's
mean scores, so a value of 1 or more is no reconstruction at all. Layers of one model are summarised
by their median (one hopeless layer must not hide the rest, and one easy giant must not either),
models by the median over models, with intervals over lineages.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from ws_pipeline.evaluation.bootstrap import resample_medians
from ws_pipeline.evaluation.comparison import Measurement, comparison_rows, draw_counts
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.features import MEAN
from ws_pipeline.evaluation.results import SLICE_ALL, ResultContext, Score, results_frame

EVALUATION = "reconstruction"
TARGET = "weights"
METRIC = "relative_error"
UNDEFINED_METRIC = "undefined_layers"
ROLE_SLICE = "role:"
FAMILY_SLICE = "family:"

MEAN_ERROR = 1.0
"""Error of predicting each layer's mean, by definition."""


def summarize_reconstruction(
    corpus: pl.DataFrame,
    errors: Mapping[str, pl.DataFrame],
    *,
    recipe: str,
    config: EvaluationConfig | None = None,
    training_seed: int = 0,
) -> pl.DataFrame:
    """Return median relative errors on held-out models: overall, by role and by family.

    Args:
        corpus: One row per model: hub_id, family, split, lineage_root.
        errors: Backbone name (``untrained`` is a control) to frame (hub_id, layer, role,
            num_params, relative_error). Rows of models that are not in the test split are left
            out; a layer whose error is not finite (constant weights) is left out and counted.
        recipe: Name that the results carry.
        config: Resamples; the defaults where None.
        training_seed: Seed that the backbone was trained with; the results' ``seed``.
    """
    config = config or EvaluationConfig()
    context = ResultContext(recipe=recipe, evaluation=EVALUATION, seed=training_seed)
    held_out = held_out_errors(corpus, errors)
    rows = list(_undefined_rows(held_out, context))
    defined = held_out.filter(pl.col("relative_error").is_finite())
    names = tuple(errors)
    rows.extend(_slice_rows(defined, names, SLICE_ALL, context, config))
    for column, prefix in (("role", ROLE_SLICE), ("family", FAMILY_SLICE)):
        for (key,), part in defined.group_by(column, maintain_order=True):
            rows.extend(_slice_rows(part, names, f"{prefix}{key}", context, config))
    return results_frame(rows)


def held_out_errors(corpus: pl.DataFrame, errors: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row per backbone, test model and layer, with family and lineage."""
    columns = ("hub_id", "layer", "role", "num_params", "relative_error")
    frames = [
        frame.select(*(pl.col(column) for column in columns), features=pl.lit(name))
        for name, frame in errors.items()
    ]
    test = corpus.filter(pl.col("split") == "test").select("hub_id", "family", "lineage_root")
    return pl.concat(frames).join(test, on="hub_id").sort("family", "role", "hub_id")


def _slice_rows(
    errors: pl.DataFrame,
    names: tuple[str, ...],
    slice_name: str,
    context: ResultContext,
    config: EvaluationConfig,
) -> list[dict[str, object]]:
    """Return the rows of one slice: over the models that every backbone has an error for."""
    models = (
        errors.group_by("hub_id", "lineage_root", "features", maintain_order=True)
        .agg(pl.col("relative_error").median())
        .pivot(on="features", index=["hub_id", "lineage_root"], values="relative_error")
        .drop_nulls()
        .sort("hub_id")
    )
    present = all(name in models.columns for name in names)
    num_models = len(models) if present else 0
    counts = draw_counts(models["lineage_root"].to_list(), config)
    measured: dict[str, Measurement | None] = dict.fromkeys((MEAN, *names))
    if present and num_models >= config.min_test_models:
        measured[MEAN] = Measurement(value=MEAN_ERROR, resamples=np.full(len(counts), MEAN_ERROR))
        for name in names:
            values = models[name].to_numpy().astype(np.float64)
            measured[name] = Measurement(
                value=float(np.median(values)), resamples=resample_medians(values, counts)
            )
    return comparison_rows(
        measured,
        context=context,
        config=config,
        target=TARGET,
        slice_name=slice_name,
        metric=METRIC,
        num_models=num_models,
    )


def _undefined_rows(errors: pl.DataFrame, context: ResultContext) -> Iterator[dict[str, object]]:
    """Yield how many layers had no finite error."""
    for (name,), part in errors.group_by("features", maintain_order=True):
        undefined = part.filter(~pl.col("relative_error").is_finite().fill_null(value=False))
        yield context.row(
            target=TARGET,
            slice_name=SLICE_ALL,
            features=str(name),
            metric=UNDEFINED_METRIC,
            score=Score(value=float(len(undefined))),
            num_models=part["hub_id"].n_unique(),
        )
