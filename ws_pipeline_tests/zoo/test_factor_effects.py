"""What a factor explains is what the analysis of variance says."""

import json

import numpy as np
import polars as pl
import pytest

from ws_pipeline.zoo.factor_effects import explain, varied_factors


def test_a_factor_that_decides_everything_explains_everything() -> None:
    found = explain(np.array([1.0, 1, 2, 2, 5, 5]), list("aabbcc"))
    assert found is not None
    assert found.share == pytest.approx(1)
    assert found.adjusted == pytest.approx(1)


def test_shares_are_those_of_the_f_statistic() -> None:
    from scipy.stats import f_oneway

    generator = np.random.default_rng(0)
    levels = np.repeat(np.arange(4), 10)
    values = generator.normal(size=40) + 0.5 * levels
    found = explain(values, levels.tolist())
    statistic = f_oneway(*(values[levels == level] for level in range(4))).statistic
    assert found is not None
    assert found.share == pytest.approx(3 * statistic / (3 * statistic + 36))
    assert found.adjusted == pytest.approx(1 - (1 - found.share) * 39 / 36)


def test_chance_explains_nothing_after_adjustment() -> None:
    generator = np.random.default_rng(0)
    found = explain(generator.normal(size=(60, 400)), [str(place % 20) for place in range(60)])
    assert found is not None
    assert found.share > 0.25
    assert abs(found.adjusted) < 0.03


@pytest.mark.parametrize("levels", ["aaaa", "abcd"])
def test_one_level_and_no_replicates_explain_nothing(levels: str) -> None:
    assert explain(np.array([1.0, 2, 3, 4]), list(levels)) is None


def test_factors_that_differ_are_listed_and_fine_tunes_have_their_parent() -> None:
    members = pl.DataFrame(
        {
            "factors": [json.dumps({"learning_rate": rate, "momentum": 0.9}) for rate in (1, 2)],
            "stage": ["finetune"] * 2,
            "root": ["one", "other"],
        }
    )
    assert varied_factors(members) == {"learning_rate": ["1", "2"], "parent": ["one", "other"]}
