"""What curves and contrasts make of the numbers of variants."""

from dataclasses import replace

import numpy as np
import pytest

from ws_pipeline.studies.contrasts import Resampled, contrast_rows, curve_points
from ws_pipeline.studies.study import Contrast, Curve, Level

CONTRAST = Contrast(
    name="kinds", narrow=("a", "b"), diverse=("mixed",), small=("a", "b"), large=("large",)
)
CURVE = Curve(
    name="kinds",
    axis="diversity",
    levels=(Level(place=1, variants=("a", "b")), Level(place=2, variants=("mixed",))),
)


def number(value: float, spread: float = 0.0) -> Resampled:
    return Resampled(
        value=value, resamples=np.array([value - spread, value + spread]), num_models=9
    )


NUMBERS = {"a": number(0.5, 0.1), "b": number(0.3, 0.1), "mixed": number(0.2), "large": number(0.1)}


def test_a_point_is_the_mean_over_its_variants() -> None:
    found = {name: each for name, _, each in curve_points([CURVE], NUMBERS, "relative_error")}
    assert found.keys() == {"diversity: kinds: 1", "diversity: kinds: 2"}
    first = found["diversity: kinds: 1"]
    assert first.value == pytest.approx(0.4)
    np.testing.assert_allclose(first.resamples, [0.3, 0.5])


def test_a_point_waits_for_all_of_its_variants() -> None:
    few = {name: NUMBERS[name] for name in ("a", "mixed")}
    found = [name for name, _, _ in curve_points([CURVE], few, "relative_error")]
    assert found == ["diversity: kinds: 2"]


def test_gains_are_positive_where_more_is_better_and_pairs_are_resampled_alike() -> None:
    found = {
        name: (metric, each)
        for name, metric, each in contrast_rows([CONTRAST], NUMBERS, "relative_error")
    }
    metric, diversity = found["kinds, diversity"]
    assert metric == "relative_error_gain"
    assert diversity.value == pytest.approx(np.log(0.4 / 0.2))
    assert found["kinds, size"][1].value == pytest.approx(np.log(0.4 / 0.1))
    metric, difference = found["kinds, diversity|kinds, size"]
    assert metric == "relative_error_gain_difference"
    # The base is in both, so what it varies by cancels: few of more kinds beside many of one.
    np.testing.assert_allclose(difference.resamples, np.log([0.5, 0.5]))


def test_accuracies_kept_are_subtracted() -> None:
    found = {name: each for name, _, each in contrast_rows([CONTRAST], NUMBERS, "accuracy_kept")}
    assert found["kinds, diversity"].value == pytest.approx(0.2 - 0.4)
    assert found["kinds, diversity|kinds, size"].value == pytest.approx(0.2 - 0.1)


def test_size_may_have_a_base_of_its_own() -> None:
    own = replace(CONTRAST, small=("a",))
    found = {name: each for name, _, each in contrast_rows([own], NUMBERS, "relative_error")}
    assert found["kinds, diversity"].value == pytest.approx(np.log(0.4 / 0.2))
    assert found["kinds, size"].value == pytest.approx(np.log(0.5 / 0.1))


def test_a_contrast_waits_for_all_of_its_variants() -> None:
    few = {name: NUMBERS[name] for name in ("a", "b", "mixed")}
    assert not list(contrast_rows([CONTRAST], few, "relative_error"))
