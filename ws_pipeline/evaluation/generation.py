"""Are generated weights worth more than what is there without them? The study, to result rows.

Per case and seed: anchors are drawn, aligned and encoded; every density and every baseline gives
one start; all are trained side by side. What is reported are means over seeds with t intervals, and
paired differences to the baselines that decide. Reads the zoo's repos. Not here: what is drawn and
trained (``generation_starts``, ``generation_training``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.evaluation.generation_config import GenerationCase, GenerationConfig
from ws_pipeline.evaluation.generation_memory import error_overlap, weight_distance
from ws_pipeline.evaluation.generation_population import Population, read_population
from ws_pipeline.evaluation.generation_starts import (
    ANCHOR,
    ANCHOR_NOISE,
    BEST_MODEL,
    BOOT_SUFFIX,
    MEAN_ALIGNED,
    MEAN_UNALIGNED,
    SCRATCH,
    STATISTICS_INIT,
    Start,
    Starts,
)
from ws_pipeline.evaluation.generation_training import Trajectory, train_starts
from ws_pipeline.evaluation.results import (
    DIFFERENCE_SUFFIX,
    SLICE_ALL,
    ResultContext,
    Score,
    join_pair,
    results_frame,
)
from ws_pipeline.generation.anchors import align_anchors
from ws_pipeline.generation.scoring import Scorer
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.index import INDEX_FILE

EVALUATION = "generation"
STEP_SLICE = "step:"

ACCURACY = "accuracy"
LOSS = "loss"
MEAN_OF_DRAWS = "accuracy_of_draws"
STEPS_TO_TARGET = "steps_to_target"
DISTANCE = "nearest_distance"
OVERLAP = "error_overlap"

CONTROLS = (SCRATCH, STATISTICS_INIT, MEAN_UNALIGNED, MEAN_ALIGNED, ANCHOR_NOISE, ANCHOR)
"""Baselines that the generated models are compared with in pairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseOutcome:
    """Everything measured of one case.

    Attributes:
        trajectories: Of all methods and seeds.
        distances: Of (method, seed): how far the nearest training model is.
        overlaps: Of (method, seed): errors shared with the training model that shares most.
        learning_rate: That all were trained with.
        target_accuracy: That steps were counted to.
    """

    case: GenerationCase
    trajectories: tuple[Trajectory, ...]
    distances: Mapping[tuple[str, int], float]
    overlaps: Mapping[tuple[str, int], float]
    learning_rate: float
    target_accuracy: float


def split_cases(
    config: GenerationConfig, zoos: Path
) -> tuple[GenerationConfig, tuple[GenerationCase, ...]]:
    """Return the study of the zoos that are there, and the cases that it leaves out."""
    there = tuple(c for c in config.cases if (zoos / c.zoo / INDEX_FILE).is_file())
    absent = tuple(case for case in config.cases if case not in there)
    return replace(config, cases=there), absent


def evaluate_generation(
    backbone: Backbone,
    zoos: Path,
    *,
    recipe: str,
    config: GenerationConfig,
    confidence: float = 0.95,
    training_seed: int = 0,
    data: Path | None = None,
) -> pl.DataFrame:
    """Return the study's result table; empty without cases.

    Args:
        backbone: That encodes and decodes.
        zoos: Folder of the zoos that the anchors are of, by name.
        recipe: Name that the results carry.
        config: Of the study.
        confidence: Of the intervals over seeds.
        training_seed: Seed that the backbone was trained with; the results' ``seed``.
        data: Where data sets lie that do not ship with the package.

    Raises:
        MissingInputError: The zoo or a data set is not there.
    """
    context = ResultContext(recipe=recipe, evaluation=EVALUATION, seed=training_seed)
    rows: list[dict[str, object]] = []
    for case in config.cases:
        outcome = run_case(backbone, zoos / case.zoo, case, config, data=data)
        rows.extend(outcome_rows(outcome, config, context, confidence))
    return results_frame(rows)


def run_case(
    backbone: Backbone,
    zoo: Path,
    case: GenerationCase,
    config: GenerationConfig,
    *,
    data: Path | None = None,
) -> CaseOutcome:
    """Make, train and compare the starts of one case."""
    dataset = load_dataset(case.dataset, data)
    population = read_population(zoo, case, dataset, config)
    scorer = Scorer(population.plan, dataset)
    starts: list[Start] = []
    distances: dict[tuple[str, int], float] = {}
    for seed in config.seeds:
        makers = Starts(
            backbone=backbone,
            population=population,
            scorer=scorer,
            dataset=dataset,
            config=config,
            seed=seed,
        )
        made = makers.make()
        # In the order of units that the anchors have, and nowhere else is anything generated.
        frame = [makers.anchors[0], *population.weights]
        ordered = align_anchors(frame, population.template.config, max_rounds=0)[1:]
        for start in made:
            others = [*makers.given, *makers.anchors, *ordered]
            if start.method == BEST_MODEL:
                others = ordered[1:]
            distances[start.method, seed] = weight_distance(start.model.weights, others)
        starts += made
    trajectories, rate = train_starts(starts, scorer, population.plan, dataset, config)
    scratch = [each for each in trajectories if each.start.method == SCRATCH]
    end = float(np.mean([each.val_accuracies[-1] for each in scratch]))
    return CaseOutcome(
        case=case,
        trajectories=tuple(trajectories),
        distances=distances,
        overlaps=_measure_overlaps(trajectories, population, scorer),
        learning_rate=rate,
        target_accuracy=config.target_share * end,
    )


def _measure_overlaps(
    trajectories: Sequence[Trajectory], population: Population, scorer: Scorer
) -> dict[tuple[str, int], float]:
    labels = scorer.test_labels()
    known = [scorer.predict(scorer.score(weights).weights) for weights in population.weights]
    overlaps = {}
    for each in trajectories:
        others = known[1:] if each.start.method == BEST_MODEL else known
        key = (each.start.method, each.start.seed)
        overlaps[key] = error_overlap(each.predictions.long(), others, labels)
    return overlaps


def outcome_rows(
    outcome: CaseOutcome, config: GenerationConfig, context: ResultContext, confidence: float
) -> Iterator[dict[str, object]]:
    """Yield the rows of one case: every number over seeds, then the paired differences."""
    generated = generated_methods(config)
    for (metric, slice_name), by_method in _tabulate(outcome, config).items():
        for method, values in by_method.items():
            yield context.row(
                target=outcome.case.name,
                slice_name=slice_name,
                features=method,
                metric=metric,
                score=score_seeds(values, confidence),
                num_models=len(values),
            )
        if metric not in {ACCURACY, STEPS_TO_TARGET}:
            continue
        for method in generated:
            for control in CONTROLS:
                pairs = zip(by_method[method], by_method[control], strict=True)
                differences = [one - other for one, other in pairs]
                yield context.row(
                    target=outcome.case.name,
                    slice_name=slice_name,
                    features=join_pair(method, control),
                    metric=metric + DIFFERENCE_SUFFIX,
                    score=score_seeds(differences, confidence),
                    num_models=len(differences),
                )


def generated_methods(config: GenerationConfig) -> tuple[str, ...]:
    """Return the names of what is generated, the iterated one last."""
    kinds = tuple(density.kind for density in config.densities)
    return (*kinds, kinds[0] + BOOT_SUFFIX)


def score_seeds(values: Sequence[float], confidence: float) -> Score:
    """Return the mean over seeds with Student's t interval."""
    from scipy import stats

    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Score(value=mean)
    error = float(sample.std(ddof=1)) / np.sqrt(len(sample))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(sample) - 1)) * float(error)
    return Score(value=mean, low=mean - reach, high=mean + reach)


def _tabulate(
    outcome: CaseOutcome, config: GenerationConfig
) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return {(metric, slice): {method: value of each seed}}."""
    table: dict[tuple[str, str], dict[str, list[float]]] = {}

    def put(metric: str, slice_name: str, method: str, value: float) -> None:
        table.setdefault((metric, slice_name), {}).setdefault(method, []).append(value)

    for each in outcome.trajectories:
        method, seed = each.start.method, each.start.seed
        for step in config.steps:
            put(ACCURACY, f"{STEP_SLICE}{step}", method, each.accuracies[step])
            put(LOSS, f"{STEP_SLICE}{step}", method, each.losses[step])
        put(MEAN_OF_DRAWS, f"{STEP_SLICE}0", method, each.start.mean_accuracy)
        put(STEPS_TO_TARGET, SLICE_ALL, method, float(each.steps_to(outcome.target_accuracy)))
        put(DISTANCE, SLICE_ALL, method, outcome.distances[method, seed])
        put(OVERLAP, SLICE_ALL, method, outcome.overlaps[method, seed])
    return table
