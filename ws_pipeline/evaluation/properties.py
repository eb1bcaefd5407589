"""Can a property of a model be read off its representation? Probes beside their controls. No I/O.

Per target, every representation and every control gets one ridge probe fitted on the training
models of all families (slice ``all``; slices ``family:X`` and ``good`` are that same probe's score
within a family and on the better half of models), one per family fitted on that family alone
(``family_fit:X``), and one per held-out grouping (``held_out:X``: each test model is predicted by a
probe that saw none of its family, data set or learning rate). Over all models, boosted trees and
attention over layers read the strong ones too. All probes of a slice see the same models: those
that have the target and all features. Scores are on the test split only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ws_pipeline.evaluation.bootstrap import PREDICTION_METRICS
from ws_pipeline.evaluation.comparison import Measurement, comparison_rows, draw_counts
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.controls import (
    build_features,
    missing_features,
    replace_statistics,
    spread_table,
)
from ws_pipeline.evaluation.features import UNTRAINED, FeatureTable, layer_vectors
from ws_pipeline.evaluation.flat_weights import flat_weights
from ws_pipeline.evaluation.model_weights import ReadLayers
from ws_pipeline.evaluation.probes import BoolArray, FloatArray
from ws_pipeline.evaluation.property_fits import (
    FAMILY_FIT_SLICE,
    Fit,
    Population,
    fit_held_out,
    fit_pooled,
    fit_ridge,
    group_values,
)
from ws_pipeline.evaluation.results import SLICE_ALL, ResultContext, results_frame
from ws_pipeline.evaluation.statistics import family_statistics, pooled_statistics
from ws_pipeline.evaluation.targets import ACCURACY, CardTruth, read_card_truth

EVALUATION = "properties"
FAMILY_SLICE = "family:"
GOOD_SLICE = "good"

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


def evaluate_properties(
    corpus: pl.DataFrame,
    embeddings: Mapping[str, pl.DataFrame],
    layers: pl.DataFrame,
    *,
    recipe: str,
    config: EvaluationConfig | None = None,
    training_seed: int = 0,
    read_layers: ReadLayers | None = None,
) -> PropertyEvaluation:
    """Return how well targets are predicted, with intervals, beside the mandatory controls.

    Args:
        corpus: One row per model: hub_id, repo_id, family, split, lineage_root, num_params, card.
        embeddings: Representation name to frame (hub_id, embedding and, for the attention probe,
            layers). ``untrained`` is a control; every other name is a representation under test,
            whole and block by block.
        layers: The stage table weights/layers of the corpus' models.
        recipe: Name that the results carry.
        config: Targets, lambdas, resamples; the defaults where None.
        training_seed: Seed that the backbone was trained with; the results' ``seed``.
        read_layers: Reads weights: adds them as they are where all models of a family have the
            same shapes.
    """
    config = config or EvaluationConfig()
    truth = read_card_truth(corpus, config.targets)
    context = ResultContext(recipe=recipe, evaluation=EVALUATION, seed=training_seed)
    population = _population(corpus, truth, config, context, embeddings)
    statistics = pooled_statistics(corpus, layers)
    pooled = build_features(corpus, truth, embeddings, statistics)
    fits = list(_fit_slices(population, pooled, layers, read_layers))
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
    corpus: pl.DataFrame,
    truth: CardTruth,
    config: EvaluationConfig,
    context: ResultContext,
    embeddings: Mapping[str, pl.DataFrame],
) -> Population:
    """Return the corpus as arrays."""
    split = corpus["split"].to_numpy().astype(str)
    learned = {name: frame for name, frame in embeddings.items() if name != UNTRAINED}
    return Population(
        corpus=corpus,
        config=config,
        context=context,
        truth={name: truth.targets[name].to_numpy().astype(float) for name in config.targets},
        lineages=corpus["lineage_root"].to_numpy().astype(str),
        families=corpus["family"].to_numpy().astype(str),
        splits={name: split == name for name in ("train", "val", "test")},
        groups={name: group_values(corpus, truth, name) for name in config.held_out},
        layers={
            name: layer_vectors(corpus, frame)
            for name, frame in learned.items()
            if "layers" in frame.columns
        },
    )


def _fit_slices(
    population: Population,
    pooled: tuple[FeatureTable, ...],
    layers: pl.DataFrame,
    read_layers: ReadLayers | None,
) -> Iterator[Fit]:
    """Yield the probes of every target: over all models, held out, over each family alone."""
    own = {
        str(family): _family_tables(population, pooled, layers, str(family), read_layers)
        for family in np.unique(population.families)
    }
    for target in population.config.targets:
        fit = fit_pooled(population, target, pooled)
        yield fit
        for name in population.config.held_out if fit.probes else ():
            yield from fit_held_out(population, target, name, pooled, fit)
        for family, tables in own.items():
            members = population.families == family
            yield fit_ridge(population, target, FAMILY_FIT_SLICE + family, tables, members)


def _family_tables(
    population: Population,
    pooled: tuple[FeatureTable, ...],
    layers: pl.DataFrame,
    family: str,
    read_layers: ReadLayers | None,
) -> tuple[FeatureTable, ...]:
    """Return the tables with the family's own s(W), and its flat weights where shapes allow."""
    members = population.families == family
    corpus = population.corpus.filter(pl.Series(members))
    tables = replace_statistics(pooled, family_statistics(corpus, layers), members)
    flat = flat_weights(corpus, read_layers) if read_layers is not None else None
    return tables if flat is None else (*tables, spread_table(flat, members))


def _score_rows(population: Population, fit: Fit) -> Iterator[dict[str, object]]:
    """Yield scores and differences of a fit: on all its test models and, if of all, by family."""
    test = fit.usable & population.splits["test"]
    slices = {fit.slice_name: test}
    if fit.slice_name == SLICE_ALL:
        slices[GOOD_SLICE] = test & _good_models(population)
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


def _good_models(population: Population) -> BoolArray:
    """Return who is at least as accurate as the median training model of its family."""
    accuracy = population.truth.get(ACCURACY)
    good = np.zeros(len(population.families), dtype=bool)
    if accuracy is None:
        return good
    for family in np.unique(population.families):
        members = population.families == family
        train = accuracy[members & population.splits["train"]]
        if np.isfinite(train).any():
            good |= members & (accuracy >= np.nanmedian(train))
    return good


def _measure(
    metric: str, truth: FloatArray, prediction: FloatArray, counts: FloatArray
) -> Measurement:
    """Return a metric of a prediction and its resamples."""
    point, resample = PREDICTION_METRICS[metric]
    return Measurement(
        value=point(truth, prediction), resamples=resample(truth, prediction, counts)
    )


def _prediction_frames(population: Population, fit: Fit) -> Iterator[pl.DataFrame]:
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


def _probe_rows(population: Population, fit: Fit) -> Iterator[dict[str, object]]:
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
