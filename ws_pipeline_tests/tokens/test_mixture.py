"""Mixtures: the share of a family follows from its weight, or from its size and a temperature."""

import polars as pl
import pytest

from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.mixture import Mixture, weigh_models

ROWS = pl.DataFrame({"family": ["bert"] * 8 + ["vit"] + ["cnn"]})


def shares(mixture: Mixture) -> dict[str, float]:
    weights = ROWS.with_columns(weight=pl.Series(weigh_models(ROWS, mixture)))
    assert weights.group_by("family").agg(pl.col("weight").n_unique())["weight"].max() == 1
    return dict(weights.group_by("family").agg(pl.col("weight").sum()).rows())


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, 0.8), (3.0, 2 / 4), (1e6, 1 / 3)],  # 8 ** (1 / 3) = 2
)
def test_a_temperature_flattens_the_shares(temperature: float, expected: float) -> None:
    found = shares(Mixture(temperature=temperature))
    assert found["bert"] == pytest.approx(expected, abs=1e-5)
    assert found["vit"] == pytest.approx((1 - expected) / 2, abs=1e-5)


def test_weights_are_the_shares_and_a_family_without_one_is_not_drawn() -> None:
    found = shares(Mixture(family_weights={"bert": 1.0, "cnn": 3.0}))
    assert found == {"bert": pytest.approx(0.25), "cnn": pytest.approx(0.75), "vit": 0.0}


def test_weights_of_families_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a family that is there: bert, cnn, vit\."):
        weigh_models(ROWS, Mixture(family_weights={"gpt2": 1.0}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.5}, r"temperature must be within \[1, 1000000\], it is 0.5"),
        ({"temperature": float("nan")}, "it is nan"),
        ({"family_weights": {"bert": -1.0}}, "bert has -1.0"),
        ({"family_weights": {"bert": float("inf")}}, "bert has inf"),
        ({"family_weights": {"bert": 1.0}, "temperature": 2.0}, "not both"),
    ],
)
def test_a_mixture_out_of_bounds_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixture(**values)  # type: ignore[arg-type]
