"""Can a property of a model be read off its representation? Probes beside their controls. No I/O.

Per target, every representation and every control gets one ridge probe fitted on the training
models of all families (slice ``all``; slice ``family:X`` is that same probe's score within a
family), and one per family fitted on that family alone (slice ``family_fit:X``). All probes of a
slice see the same models: those that have the target and all features. Scores are on the test
split only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.bootstrap import PREDICTION_METRICS
from ws_pipeline.evaluation.comparison import Measurement, comparison_rows, draw_counts
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.controls import build_features, missing_features, replace_statistics
from ws_pipeline.evaluation.features import FeatureTable
from ws_pipeline.evaluation.probes import Probe, fit_probe
from ws_pipeline.evaluation.results import SLICE_ALL, ResultContext, results_frame
from ws_pipeline.evaluation.statistics import family_statistics, pooled_statistics
from ws_pipeline.evaluation.targets import CardTruth, read_card_truth

EVALUATION = "properties"
FAMILY_SLICE = "family:"
FAMILY_FIT_SLICE = "family_fit:"

PREDICTION_SCHEMA = pl.Schema(
    {
        "recipe": pl.String,
        "target": pl.String,
        "slice": pl.String,
        "features": pl.String,
        "hub_id": pl.String,
        "repo_id": pl.String,
        "family": pl.String,
        "truth": pl.Float64,
        "prediction": pl.Float64,
    }
)
PROBE_SCHEMA = pl.Schema(
    {
        "recipe": pl.String,
        "target": pl.String,
        "slice": pl.String,
        "features": pl.String,
        "regularization": pl.Float64,
        "chosen_on": pl.String,
        "num_features": pl.Int64,
        "num_train": pl.Int64,
        "num_val": pl.Int64,
        "num_test": pl.Int64,
    }
)

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PropertyEvaluation:
    """What a property evaluation found.

    Attributes:
        results: Result table (RESULT_SCHEMA).
        predictions: Test models, true and predicted (PREDICTION_SCHEMA).
        probes: One row per fitted probe (PROBE_SCHEMA).
        missing: Models left out, by target and reason (MISSING_SCHEMA).
    """

    results: pl.DataFrame
    predictions: pl.DataFrame
    probes: pl.DataFrame
    missing: pl.DataFrame


@dataclass(frozen=True, kw_only=True, slots=True)
class _Population:
    """The corpus as arrays, and what all slices share. Arrays are ``(models,)``."""

    corpus: pl.DataFrame
    config: EvaluationConfig
    context: ResultContext
    truth: Mapping[str, FloatArray]
    lineages: NDArray[Any]
    families: NDArray[Any]
    splits: Mapping[str, BoolArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """The probes of one target on one set of models."""

    target: str
    slice_name: str
    names: tuple[str, ...]
    usable: BoolArray
    probes: dict[str, Probe] = field(default_factory=dict)


def evaluate_properties(
    corpus: pl.DataFrame,
    embeddings: Mapping[str, pl.DataFrame],
    layers: pl.DataFrame,
    *,
    recipe: str,
    config: EvaluationConfig | None = None,
    training_seed: int = 0,
) -> PropertyEvaluation:
    """Return how well targets are predicted, with intervals, beside the mandatory controls.

    Args:
        corpus: One row per model: hub_id, repo_id, family, split, lineage_root, num_params, card.
        embeddings: Representation name to frame (hub_id, embedding). ``untrained`` is a control;
            every other name is a representation under test.
        layers: The stage table weights/layers of the corpus' models.
        recipe: Name that the results carry.
        config: Targets, lambdas, resamples; the defaults where None.
        training_seed: Seed that the backbone was trained with; the results' ``seed``.
    """
    config = config or EvaluationConfig()
    truth = read_card_truth(corpus, config.targets)
    population = _population(corpus, truth, config, recipe, training_seed)
    pooled = build_features(corpus, truth, embeddings, pooled_statistics(corpus, layers))
    fits = list(_fit_slices(population, pooled, layers))
    rows = [row for fit in fits for row in _score_rows(population, fit)]
    predictions = [frame for fit in fits for frame in _prediction_frames(population, fit)]
    probes = [row for fit in fits for row in _probe_rows(population, fit)]
    return PropertyEvaluation(
        results=results_frame(rows),
        predictions=pl.concat([pl.DataFrame(schema=PREDICTION_SCHEMA), *predictions]),
        probes=pl.DataFrame(probes, schema=PROBE_SCHEMA),
        missing=pl.concat([truth.missing, *(missing_features(table) for table in pooled)]),
    )


def _population(
    corpus: pl.DataFrame, truth: CardTruth, config: EvaluationConfig, recipe: str, seed: int
) -> _Population:
    """Return the corpus as arrays."""
    split = corpus["split"].to_numpy().astype(str)
    return _Population(
        corpus=corpus,
        config=config,
        context=ResultContext(recipe=recipe, evaluation=EVALUATION, seed=seed),
        truth={name: truth.targets[name].to_numpy().astype(float) for name in config.targets},
        lineages=corpus["lineage_root"].to_numpy().astype(str),
        families=corpus["family"].to_numpy().astype(str),
        splits={name: split == name for name in ("train", "val", "test")},
    )


def _fit_slices(
    population: _Population, pooled: tuple[FeatureTable, ...], layers: pl.DataFrame
) -> Iterator[_Fit]:
    """Yield the probes of every target: over all models, then over each family alone."""
    everyone = np.ones(len(population.corpus), dtype=bool)
    families = np.unique(population.families)
    own = {}
    for family in families:
        members = population.families == family
        statistics = family_statistics(population.corpus.filter(pl.Series(members)), layers)
        own[str(family)] = (members, replace_statistics(pooled, statistics, members))
    for target in population.config.targets:
        yield _fit_slice(population, target, SLICE_ALL, pooled, everyone)
        for family, (members, tables) in own.items():
            yield _fit_slice(population, target, FAMILY_FIT_SLICE + family, tables, members)


def _fit_slice(
    population: _Population,
    target: str,
    slice_name: str,
    tables: tuple[FeatureTable, ...],
    members: BoolArray,
) -> _Fit:
    """Fit one probe per features on the members that have the target and all features."""
    truth = population.truth[target]
    usable = members & np.isfinite(truth)
    usable &= np.logical_and.reduce([table.available for table in tables])
    names = tuple(table.name for table in tables)
    fit = _Fit(target=target, slice_name=slice_name, names=names, usable=usable)
    train = usable & population.splits["train"]
    if int(train.sum()) < population.config.min_train_models:
        return fit
    for table in tables:
        fit.probes[table.name] = fit_probe(
            table.values,
            truth,
            train=train,
            val=usable & population.splits["val"],
            lineages=population.lineages.tolist(),
            config=population.config,
        )
    return fit


def _score_rows(population: _Population, fit: _Fit) -> Iterator[dict[str, object]]:
    """Yield scores and differences of a fit: on all its test models and, if of all, by family."""
    test = fit.usable & population.splits["test"]
    slices = {fit.slice_name: test}
    if fit.slice_name == SLICE_ALL:
        for family in np.unique(population.families):
            slices[FAMILY_SLICE + str(family)] = test & (population.families == family)
    for slice_name, models in slices.items():
        num_models = int(models.sum())
        counts = draw_counts(population.lineages[models].tolist(), population.config)
        for metric in PREDICTION_METRICS:
            measured: dict[str, Measurement | None] = dict.fromkeys(fit.names)
            if num_models >= population.config.min_test_models:
                truth = population.truth[fit.target][models]
                for name, probe in fit.probes.items():
                    measured[name] = _measure(metric, truth, probe.prediction[models], counts)
            yield from comparison_rows(
                measured,
                context=population.context,
                config=population.config,
                target=fit.target,
                slice_name=slice_name,
                metric=metric,
                num_models=num_models,
            )


def _measure(
    metric: str, truth: FloatArray, prediction: FloatArray, counts: FloatArray
) -> Measurement:
    """Return a metric of a prediction and its resamples."""
    point, resample = PREDICTION_METRICS[metric]
    return Measurement(
        value=point(truth, prediction), resamples=resample(truth, prediction, counts)
    )


def _prediction_frames(population: _Population, fit: _Fit) -> Iterator[pl.DataFrame]:
    """Yield true and predicted values of a fit's test models, one frame per features."""
    test = fit.usable & population.splits["test"]
    models = population.corpus.filter(pl.Series(test))
    for features, probe in fit.probes.items():
        yield models.select(
            recipe=pl.lit(population.context.recipe),
            target=pl.lit(fit.target),
            slice=pl.lit(fit.slice_name),
            features=pl.lit(features),
            hub_id="hub_id",
            repo_id="repo_id",
            family="family",
            truth=pl.Series(population.truth[fit.target][test], dtype=pl.Float64),
            prediction=pl.Series(probe.prediction[test], dtype=pl.Float64),
        ).select(pl.col(name).cast(dtype) for name, dtype in PREDICTION_SCHEMA.items())


def _probe_rows(population: _Population, fit: _Fit) -> Iterator[dict[str, object]]:
    """Yield how each probe of a fit came about."""
    sizes = {name: int((fit.usable & mask).sum()) for name, mask in population.splits.items()}
    for features, probe in fit.probes.items():
        yield {
            "recipe": population.context.recipe,
            "target": fit.target,
            "slice": fit.slice_name,
            "features": features,
            "regularization": probe.regularization,
            "chosen_on": probe.chosen_on,
            "num_features": probe.num_features,
            "num_train": sizes["train"],
            "num_val": sizes["val"],
            "num_test": sizes["test"],
        }
