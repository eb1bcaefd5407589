"""From resampled statistics to rows: scores with intervals and paired differences. Pure; no I/O.

All representations of one slice are resampled with the same draws, so the interval of a difference
is paired: it can exclude zero although the two single intervals overlap.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.evaluation.bootstrap import FloatArray, draw_lineage_counts, with_interval
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.features import (
    BOOSTED,
    CONTROLS,
    HYPER_PARAMETERS,
    LATENTS_ALONE,
    STATISTICS,
    is_control,
)
from ws_pipeline.evaluation.results import (
    DIFFERENCE_SUFFIX,
    NOT_MEASURED,
    ResultContext,
    Score,
    join_pair,
)

_PROBED_CONTROLS = (
    HYPER_PARAMETERS,
    STATISTICS,
    HYPER_PARAMETERS + BOOSTED,
    STATISTICS + BOOSTED,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A statistic of the sample and of its resamples, ``(num_bootstrap,)``; none, no interval."""

    value: float
    resamples: NDArray[np.float64]


def draw_counts(lineages: Sequence[str], config: EvaluationConfig) -> FloatArray:
    """Return the resamples of a slice; ``(0, models)`` with too few lineages for an interval."""
    if len(set(lineages)) < config.min_lineages:
        return np.zeros((0, len(lineages)))
    return draw_lineage_counts(lineages, config.num_bootstrap, np.random.default_rng(config.seed))


def compared_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return each representation with each control.

    Joined with s(W), a representation meets s(W) alone; read by another probe than ridge, it meets
    s(W) and the hyper-parameters, by ridge and by boosted trees.
    """
    names = tuple(names)
    pairs: list[tuple[str, str]] = []
    for name in names:
        if is_control(name):
            continue
        controls: tuple[str, ...] = (*CONTROLS, name + LATENTS_ALONE)
        if name.endswith(f"+{STATISTICS}"):
            controls = (STATISTICS,)
        elif "@" in name:
            controls = _PROBED_CONTROLS
        pairs.extend((name, control) for control in controls if control in names)
    return pairs


def comparison_rows(
    measured: Mapping[str, Measurement | None],
    *,
    context: ResultContext,
    config: EvaluationConfig,
    target: str,
    slice_name: str,
    metric: str,
    num_models: int,
) -> list[dict[str, object]]:
    """Return a row per representation and one per compared pair.

    Args:
        measured: Representation to its measurement; None where it could not be measured: the row is
            there all the same, with a null.
        context: Columns that all rows share.
        config: Confidence of the intervals.
        target: Column of the rows.
        slice_name: Column of the rows.
        metric: Column of the rows; the pairs' ends in ``_difference``.
        num_models: Held-out models behind the numbers.
    """
    scores: list[tuple[str, str, Score]] = [
        (name, metric, _score(measurement, config)) for name, measurement in measured.items()
    ]
    for first, second in compared_pairs(measured):
        difference = _subtract(measured[first], measured[second])
        scores.append(
            (join_pair(first, second), metric + DIFFERENCE_SUFFIX, _score(difference, config))
        )
    return [
        context.row(
            target=target,
            slice_name=slice_name,
            features=features,
            metric=name,
            score=score,
            num_models=num_models,
        )
        for features, name, score in scores
    ]


def _score(measurement: Measurement | None, config: EvaluationConfig) -> Score:
    """Return a measurement as a score with its interval."""
    if measurement is None:
        return NOT_MEASURED
    return with_interval(measurement.value, measurement.resamples, config.confidence)


def _subtract(first: Measurement | None, second: Measurement | None) -> Measurement | None:
    """Return the paired difference, or None."""
    if first is None or second is None:
        return None
    if len(first.resamples) != len(second.resamples):
        return Measurement(value=first.value - second.value, resamples=np.zeros(0))
    return Measurement(
        value=first.value - second.value, resamples=first.resamples - second.resamples
    )
