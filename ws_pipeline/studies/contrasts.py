"""Curves and contrasts of a study from the numbers of its variants. Pure; no I/O.

A point of a curve is the mean over its variants. A contrast says what more kinds of models at the
same number do for a number, what more models of one kind do, and the difference of the two: gains
are logarithms of the error before over that after, or accuracies kept after minus before, so that
more is better in either case. Resamples are of the same lineages, so all are paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ws_pipeline.evaluation.bootstrap import FloatArray
from ws_pipeline.evaluation.curves import CurvePoint, join_point
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX, join_pair
from ws_pipeline.studies.study import Contrast, Curve

Place = tuple[str, str, str]
"""(target, slice, metric) of a number."""

GAIN_SUFFIX = "_gain"
DIVERSITY, SIZE = "diversity", "size"
_LOWER_IS_BETTER = "relative_error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """A number and its resamples, ``(num_bootstrap,)``."""

    value: float
    resamples: FloatArray
    num_models: int

    def minus(self, other: "Resampled") -> "Resampled":
        """Return the paired difference."""
        return self._with(self.value - other.value, self.resamples - other.resamples)

    def over(self, other: "Resampled") -> "Resampled":
        """Return the paired ratio."""
        return self._with(self.value / other.value, self.resamples / other.resamples)

    def log(self) -> "Resampled":
        """Return the logarithm; the bench leaves no error of zero."""
        return self._with(float(np.log(self.value)), np.log(self.resamples))

    def _with(self, value: float, resamples: FloatArray) -> "Resampled":
        return Resampled(value=value, resamples=resamples, num_models=self.num_models)


def average(numbers: Sequence[Resampled]) -> Resampled:
    """Return the mean of numbers."""
    return Resampled(
        value=float(np.mean([number.value for number in numbers])),
        resamples=np.mean([number.resamples for number in numbers], axis=0),
        num_models=max(number.num_models for number in numbers),
    )


def curve_points(
    curves: Sequence[Curve], numbers: Mapping[str, Resampled], metric: str
) -> Iterator[tuple[str, str, Resampled]]:
    """Yield (features, metric, number) of each point whose variants are all there.

    Args:
        curves: Of the study.
        numbers: Of each variant, of one slice.
        metric: Which number it is.
    """
    for curve in curves:
        for level in curve.levels:
            if numbers.keys() >= set(level.variants):
                point = CurvePoint(curve.axis, curve.name, level.place)
                yield join_point(point), metric, average([numbers[n] for n in level.variants])


def contrast_rows(
    contrasts: Sequence[Contrast], numbers: Mapping[str, Resampled], metric: str
) -> Iterator[tuple[str, str, Resampled]]:
    """Yield (features, metric, number): both gains of each contrast, then their difference."""
    for each in contrasts:
        groups = (each.narrow, each.diverse, each.small, each.large)
        if not numbers.keys() >= {name for names in groups for name in names}:
            continue
        narrow, diverse, small, large = (
            average([numbers[name] for name in names]) for names in groups
        )
        diversity, size = _gain(narrow, diverse, metric), _gain(small, large, metric)
        first, second = (f"{each.name}, {what}" for what in (DIVERSITY, SIZE))
        yield first, metric + GAIN_SUFFIX, diversity
        yield second, metric + GAIN_SUFFIX, size
        pair = join_pair(first, second)
        yield pair, metric + GAIN_SUFFIX + DIFFERENCE_SUFFIX, diversity.minus(size)


def _gain(before: Resampled, after: Resampled, metric: str) -> Resampled:
    return before.over(after).log() if metric == _LOWER_IS_BETTER else after.minus(before)
