"""Statistics: what numpy says in float64, in one pass, for any dtype, and never of NaN."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.statistics import (
    CHUNK,
    QUANTILES,
    STATISTICS_FIELDS,
    measure_layer,
    measure_moments,
    measure_quantiles,
    select_ranks,
)

FINITE = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


@given(FINITE)
def test_moments_and_quantiles_are_those_of_numpy(values: np.ndarray) -> None:  # type: ignore[type-arg]
    wide = values.astype(np.float64)
    moments = measure_moments(values)
    scale = np.abs(wide).max() + 1e-300
    assert moments.mean == pytest.approx(wide.mean(), rel=1e-12, abs=1e-14 * scale)
    assert moments.std == pytest.approx(wide.std(), rel=1e-9, abs=1e-12 * scale)
    expected = np.quantile(wide, QUANTILES)
    np.testing.assert_allclose(measure_quantiles(values), expected, rtol=1e-12, atol=1e-13 * scale)


@given(hnp.arrays(np.uint32, st.integers(1, 60)), st.data())
def test_ranks_are_the_same_however_they_are_selected(
    bits: np.ndarray,  # type: ignore[type-arg]
    data: st.DataObject,
) -> None:
    values = bits.view(np.float32)
    values = np.where(np.isfinite(values), values, np.float32(1.0))
    ranks = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ws_pipeline.weights.statistics.MIN_BINNED", 0)
        binned = select_ranks(values, ranks)
    assert binned == {rank: float(np.sort(values)[rank]) for rank in ranks}


@given(FINITE, FINITE)
def test_the_whole_layer_is_weights_and_biases_together(
    weights: np.ndarray,  # type: ignore[type-arg]
    biases: np.ndarray,  # type: ignore[type-arg]
) -> None:
    measured = measure_layer("w", weights, biases)
    both = np.concatenate([weights, biases]).astype(np.float64)
    scale = np.abs(both).max() + 1e-300
    assert measured.mean == pytest.approx(both.mean(), rel=1e-12, abs=1e-14 * scale)
    assert measured.std == pytest.approx(both.std(), rel=1e-9, abs=1e-12 * scale)
    assert measured.w_min == weights.min()
    assert measured.b_q50 == pytest.approx(np.median(biases.astype(np.float64)), abs=1e-13 * scale)


def test_a_large_offset_does_not_eat_the_variance() -> None:
    values = (1e6 + np.random.default_rng(0).standard_normal(3 * CHUNK + 7)).astype(np.float64)
    assert measure_moments(values).std == pytest.approx(values.std(), rel=1e-10)


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.float64]
)
def test_every_floating_dtype_is_measured(dtype: type) -> None:
    values = np.linspace(-2, 2, 9).astype(dtype)
    measured = measure_layer("w", values, None)
    assert (measured.w_min, measured.w_max, measured.mean) == (-2.0, 2.0, 0.0)
    assert measured.b_mean is None


def test_a_constant_layer_and_a_single_number_have_no_spread() -> None:
    assert measure_layer("w", np.full((3, 3), 0.1, np.float32), None).std == pytest.approx(
        0, abs=1e-12
    )
    single = measure_layer("w", np.array(3.5, np.float32), None)
    assert (single.w_q01, single.w_q99, single.std) == (3.5, 3.5, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_a_value_that_is_not_finite_is_refused_with_the_layers_name(bad: float, where: str) -> None:
    good = np.ones(5, np.float32)
    broken = good.copy()
    broken[3] = bad
    arguments = (broken, good) if where == "weight" else (good, broken)
    with pytest.raises(WeightsError, match=r"finite; layer fc\.weight holds NaN") as caught:
        measure_layer("fc.weight", *arguments)
    assert caught.value.reason is Reason.NON_FINITE_WEIGHTS


def test_the_field_order_is_that_of_the_layer_table() -> None:
    assert STATISTICS_FIELDS[:4] == ("w_mean", "w_std", "w_min", "w_max")
    assert STATISTICS_FIELDS[-2:] == ("mean", "std")
