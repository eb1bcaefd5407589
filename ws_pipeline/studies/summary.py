"""From the cells of a study to its numbers, with intervals over lineages and seeds. No I/O.

Three numbers for a variant: the relative error of a held-out layer (median over layers, so that
quiet layers count as much as loud ones), within all models and within each group of families; what
models that were decoded near held-out ones keep of those' accuracy; and R^2 of a ridge probe of
accuracy on the embedding. The value is the mean over seeds. A resample draws lineages and seeds
with replacement; lineages are drawn alike for all variants, so that differences and ratios are
paired.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from ws_pipeline.evaluation.bootstrap import (
    FloatArray,
    draw_lineage_counts,
    resample_means,
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
from ws_pipeline.studies.contrasts import Place, Resampled, contrast_rows, curve_points
from ws_pipeline.studies.study import Study, Variant, name_datasets

WEIGHTS = "weights"
RELATIVE_ERROR = "relative_error"
GENERATED = "generated"
ACCURACY_KEPT = "accuracy_kept"
R2 = "r2"
RATIO_SUFFIX = "_ratio"
TRAINED_ON = "in distribution"
NOT_TRAINED_ON = "out of distribution"
OTHER_DATA = "other data sets"
"""Of the architectures that a variant was trained on."""
OWN_SLICES = (TRAINED_ON, NOT_TRAINED_ON, OTHER_DATA)


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
    measured: dict[Place, dict[str, Resampled]] = {}
    named = name_datasets(corpus)
    for variant in study.variants:
        done = cells.get(variant.name, ())
        if done:
            for place, number in _measure(study, variant, named, done, config):
                measured.setdefault(place, {})[variant.name] = number
    for (target, slice_name, metric), numbers in measured.items():
        # Each variant has been trained on models of its own: these slices hold other ones.
        own = slice_name in OWN_SLICES
        bases = {} if own else {v.name: v.compared_with or study.baseline for v in study.variants}
        found = [
            *_compare(numbers, bases, metric),
            *curve_points(study.curves, numbers, metric),
            *([] if own else contrast_rows(study.contrasts, numbers, metric)),
        ]
        rows += [
            context.row(
                target=target,
                slice_name=slice_name,
                features=features,
                metric=name,
                score=with_interval(number.value, number.resamples, config.confidence),
                num_models=number.num_models,
            )
            for features, name, number in found
        ]
    return results_frame(rows)


def _compare(
    numbers: Mapping[str, Resampled], bases: Mapping[str, str], metric: str
) -> Iterator[tuple[str, str, Resampled]]:
    """Yield (features, metric, number) of each variant, alone and compared."""
    for name, number in numbers.items():
        yield name, metric, number
        base = numbers.get(bases.get(name, ""))
        if base is None or base is number:
            continue
        pair = join_pair(name, bases[name])
        yield pair, metric + DIFFERENCE_SUFFIX, number.minus(base)
        if metric == RELATIVE_ERROR:
            yield pair, metric + RATIO_SUFFIX, number.over(base)


def _measure(
    study: Study,
    variant: Variant,
    corpus: pl.DataFrame,
    cells: Sequence[CellTables],
    config: EvaluationConfig,
) -> Iterator[tuple[Place, Resampled]]:
    """Yield ((target, slice, metric), number) of one variant."""
    errors = [_with_lineage(cell.errors, corpus) for cell in cells]
    generated = [_with_lineage(cell.generated, corpus) for cell in cells]
    for name, belongs in _slices(study, variant).items():
        parts = [frame.filter(belongs) for frame in errors]
        if _suffices(parts[0], config):
            yield (WEIGHTS, name, RELATIVE_ERROR), _median_error(parts, config)
        draws = [frame.filter(belongs) for frame in generated]
        if _suffices(draws[0], config):
            yield (GENERATED, name, ACCURACY_KEPT), _accuracy_kept(draws, config)
    probe = _probe_r2([cell.embeddings for cell in cells], corpus, config)
    if probe is not None:
        yield (TARGET, SLICE_ALL, R2), probe


def _slices(study: Study, variant: Variant) -> dict[str, pl.Expr]:
    """Return the slices of a variant by name: which rows (family, dataset) belong to each."""
    slices = {SLICE_ALL: pl.lit(value=True)}
    slices |= {name: pl.col("family").is_in(group) for name, group in study.groups.items()}
    population = variant.population
    if population.families:
        trained = population.covers()
        slices |= {TRAINED_ON: trained, NOT_TRAINED_ON: ~trained}
    if population.datasets:
        slices[OTHER_DATA] = pl.col("family").is_in(population.families) & ~trained
    return slices


def _suffices(rows: pl.DataFrame, config: EvaluationConfig) -> bool:
    return rows["lineage_root"].n_unique() >= config.min_lineages


def _with_lineage(rows: pl.DataFrame, corpus: pl.DataFrame) -> pl.DataFrame:
    """Return rows of a cell's table with what their models are, in an order of their own."""
    keys = corpus.select("hub_id", "family", "dataset", "lineage_root")
    named = rows.drop("family", "dataset", strict=False).join(keys, on="hub_id")
    if "layer" not in rows.columns:
        return named.sort("hub_id", "draw")
    return named.filter(pl.col("relative_error").is_finite()).sort("hub_id", "layer")


def _median_error(frames: Sequence[pl.DataFrame], config: EvaluationConfig) -> Resampled:
    """Median over layers of each seed, averaged over seeds."""
    counts = _draw_counts(frames[0], config)
    values = [frame["relative_error"].to_numpy() for frame in frames]
    return Resampled(
        value=float(np.mean([np.median(each) for each in values])),
        resamples=_mean_over_seeds([resample_medians(each, counts) for each in values], config),
        num_models=frames[0]["hub_id"].n_unique(),
    )


def _accuracy_kept(frames: Sequence[pl.DataFrame], config: EvaluationConfig) -> Resampled:
    """Mean accuracy of the draws over that of their anchors, averaged over seeds."""
    counts = _draw_counts(frames[0], config)
    pairs = [frame.select("accuracy", "anchor_accuracy").to_numpy().T for frame in frames]
    kept = [resample_means(own, counts) / resample_means(known, counts) for own, known in pairs]
    return Resampled(
        value=float(np.mean([own.mean() / known.mean() for own, known in pairs])),
        resamples=_mean_over_seeds(kept, config),
        num_models=frames[0]["hub_id"].n_unique(),
    )


def _draw_counts(rows: pl.DataFrame, config: EvaluationConfig) -> FloatArray:
    generator = np.random.default_rng(config.seed)
    return draw_lineage_counts(rows["lineage_root"].to_list(), config.num_bootstrap, generator)


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
