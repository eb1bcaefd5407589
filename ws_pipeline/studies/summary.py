"""From the cells of a study to its numbers, with intervals over lineages and seeds. No I/O.

Two numbers for a variant: the relative error of a held-out layer (median over layers, so that quiet
layers count as much as loud ones), within all models and within each group of families; and R^2 of
a ridge probe of accuracy on the embedding. The value is the mean over seeds. A resample draws
lineages and seeds with replacement; lineages are drawn alike for all variants, so that differences
and ratios are paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ws_pipeline.evaluation.bootstrap import (
    FloatArray,
    draw_lineage_counts,
    resample_medians,
    resample_r2,
    score_r2,
    with_interval,
)
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.probes import fit_probe
from ws_pipeline.evaluation.results import (
    DIFFERENCE_SUFFIX,
    SLICE_ALL,
    ResultContext,
    join_pair,
    results_frame,
)
from ws_pipeline.evaluation.targets import read_card_truth
from ws_pipeline.studies.bench import TARGET, CellTables
from ws_pipeline.studies.study import Study, Variant

WEIGHTS = "weights"
RELATIVE_ERROR = "relative_error"
R2 = "r2"
RATIO_SUFFIX = "_ratio"
TRAINED_ON = "in distribution"
NOT_TRAINED_ON = "out of distribution"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """A number of one variant and its resamples, ``(num_bootstrap,)``."""

    value: float
    resamples: FloatArray
    num_models: int


def summarize_study(
    study: Study,
    corpus: pl.DataFrame,
    cells: Mapping[str, Sequence[CellTables]],
    *,
    config: EvaluationConfig | None = None,
) -> pl.DataFrame:
    """Return the study's numbers as a result table (RESULT_SCHEMA).

    Args:
        study: Its variants and groups.
        corpus: Rows of `corpus/splits`.
        cells: Variant name to its finished cells; a variant without any has no rows.
        config: Resamples, confidence, the probe's penalties; the defaults where None.
    """
    config = config or EvaluationConfig()
    rows: list[dict[str, object]] = []
    context = ResultContext(recipe="tiny", evaluation=study.name, seed=0)
    measured: dict[tuple[str, str, str], dict[str, Resampled]] = {}
    for variant in study.variants:
        done = cells.get(variant.name, ())
        if done:
            for place, number in _measure(study, variant, corpus, done, config):
                measured.setdefault(place, {})[variant.name] = number
    for (target, slice_name, metric), numbers in measured.items():
        # Each variant has been trained on families of its own: these slices hold other models.
        own = slice_name in (TRAINED_ON, NOT_TRAINED_ON)
        bases = {} if own else {v.name: v.compared_with or study.baseline for v in study.variants}
        for features, name, value, resamples, num_models in _compare(numbers, bases, metric):
            rows.append(
                context.row(
                    target=target,
                    slice_name=slice_name,
                    features=features,
                    metric=name,
                    score=with_interval(value, resamples, config.confidence),
                    num_models=num_models,
                )
            )
    return results_frame(rows)


def _compare(
    numbers: Mapping[str, Resampled], bases: Mapping[str, str], metric: str
) -> Iterator[tuple[str, str, float, FloatArray, int]]:
    """Yield (features, metric, value, resamples, models) of each variant, alone and compared."""
    for name, number in numbers.items():
        yield name, metric, number.value, number.resamples, number.num_models
        base = numbers.get(bases.get(name, ""))
        if base is None or base is number:
            continue
        pair, num_models = join_pair(name, bases[name]), number.num_models
        difference = number.resamples - base.resamples
        yield pair, metric + DIFFERENCE_SUFFIX, number.value - base.value, difference, num_models
        if metric == RELATIVE_ERROR:
            ratio = number.resamples / base.resamples
            yield pair, metric + RATIO_SUFFIX, number.value / base.value, ratio, num_models


def _measure(
    study: Study,
    variant: Variant,
    corpus: pl.DataFrame,
    cells: Sequence[CellTables],
    config: EvaluationConfig,
) -> Iterator[tuple[tuple[str, str, str], Resampled]]:
    """Yield ((target, slice, metric), number) of one variant."""
    errors = [_with_lineage(cell.errors, corpus) for cell in cells]
    families = frozenset(corpus["family"].unique())
    groups = {SLICE_ALL: families, **study.groups}
    trained = frozenset(variant.population.families)
    if trained:
        groups |= {TRAINED_ON: trained, NOT_TRAINED_ON: families - trained}
    for name, members in groups.items():
        parts = [frame.filter(pl.col("family").is_in(list(members))) for frame in errors]
        if parts[0]["lineage_root"].n_unique() >= config.min_lineages:
            yield (WEIGHTS, name, RELATIVE_ERROR), _median_error(parts, config)
    probe = _probe_r2([cell.embeddings for cell in cells], corpus, config)
    if probe is not None:
        yield (TARGET, SLICE_ALL, R2), probe


def _with_lineage(errors: pl.DataFrame, corpus: pl.DataFrame) -> pl.DataFrame:
    keys = corpus.select("hub_id", "family", "lineage_root")
    finite = errors.filter(pl.col("relative_error").is_finite())
    return finite.join(keys, on="hub_id", maintain_order="left").sort("hub_id", "layer")


def _median_error(frames: Sequence[pl.DataFrame], config: EvaluationConfig) -> Resampled:
    """Median over layers of each seed, averaged over seeds."""
    generator = np.random.default_rng(config.seed)
    lineages = frames[0]["lineage_root"].to_list()
    counts = draw_lineage_counts(lineages, config.num_bootstrap, generator)
    values = [frame["relative_error"].to_numpy() for frame in frames]
    return Resampled(
        value=float(np.mean([np.median(each) for each in values])),
        resamples=_mean_over_seeds([resample_medians(each, counts) for each in values], config),
        num_models=frames[0]["hub_id"].n_unique(),
    )


def _probe_r2(
    embeddings: Sequence[pl.DataFrame], corpus: pl.DataFrame, config: EvaluationConfig
) -> Resampled | None:
    """R^2 of each seed's probe on held-out models, averaged; None with too few models."""
    truth = read_card_truth(corpus, (TARGET,)).targets.drop_nulls(TARGET)
    models = corpus.select("hub_id", "split", "lineage_root").join(truth, on="hub_id")
    models = models.join(embeddings[0].select("hub_id"), on="hub_id", how="semi").sort("hub_id")
    split = models["split"].to_numpy().astype(str)
    test, train, val = (split == name for name in ("test", "train", "val"))
    if test.sum() < config.min_test_models or train.sum() < config.min_train_models:
        return None
    values = models[TARGET].to_numpy().astype(np.float64)
    lineages = models["lineage_root"].to_list()
    generator = np.random.default_rng(config.seed)
    held_out = models.filter(pl.Series(test))["lineage_root"].to_list()
    counts = draw_lineage_counts(held_out, config.num_bootstrap, generator)
    scores, resamples = [], []
    for frame in embeddings:
        vectors = models.select("hub_id").join(frame, on="hub_id", maintain_order="left")
        probe = fit_probe(
            np.array(vectors["embedding"].to_list(), dtype=np.float64),
            values,
            train=train,
            val=val,
            lineages=lineages,
            config=config,
        )
        predicted = probe.prediction[test]
        scores.append(score_r2(values[test], predicted))
        resamples.append(resample_r2(values[test], predicted, counts))
    return Resampled(
        value=float(np.mean(scores)),
        resamples=_mean_over_seeds(resamples, config),
        num_models=int(test.sum()),
    )


def _mean_over_seeds(resamples: Sequence[FloatArray], config: EvaluationConfig) -> FloatArray:
    """Average over seeds that are drawn with replacement, anew in each resample."""
    every = np.stack(resamples)  # (seeds, num_bootstrap)
    generator = np.random.default_rng(config.seed + 1)
    chosen = generator.integers(len(every), size=every.shape)
    return np.asarray(np.take_along_axis(every, chosen, axis=0).mean(axis=0))
