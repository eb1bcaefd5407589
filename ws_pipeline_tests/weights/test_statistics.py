"""Statistics: what numpy says in float64, in one pass, for any dtype, and never of NaN."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.distributions import MAX_SORTED, MIN_COUNTED, measure_values
from ws_pipeline.weights.row_statistics import QUANTILES, combine_rows, measure_rows
from ws_pipeline.weights.statistics import STATISTICS_FIELDS, measure_layer

FINITE = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


@given(FINITE)
def test_moments_and_quantiles_are_those_of_numpy(values: np.ndarray) -> None:  # type: ignore[type-arg]
    wide = values.astype(np.float64)
    measured = measure_values("w", values)
    moments = measured.moments
    scale = np.abs(wide).max() + 1e-300
    assert moments.mean == pytest.approx(wide.mean(), rel=1e-12, abs=1e-14 * scale)
    assert moments.std == pytest.approx(wide.std(), rel=1e-9, abs=1e-12 * scale)
    expected = np.quantile(wide, QUANTILES)
    np.testing.assert_allclose(measured.quantiles, expected, rtol=1e-12, atol=1e-13 * scale)


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
    for dtype, size in ((np.float64, 99_999), (np.float32, 199_999), (np.float32, 999)):
        values = (1e4 + np.random.default_rng(0).standard_normal(size)).astype(dtype)
        std = measure_layer("w", values, None).std
        assert std == pytest.approx(values.astype(np.float64).std(), rel=1e-10)


@pytest.mark.parametrize("size", [MAX_SORTED, MAX_SORTED + 1, MIN_COUNTED - 1, MIN_COUNTED + 3])
@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn],
)
def test_a_layer_of_any_size_and_dtype_has_numpys_statistics(dtype: type, size: int) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(dtype)
    wide = values.astype(np.float64)
    measured = measure_layer("w", values, None)
    assert measured.w_mean == pytest.approx(wide.mean(), abs=1e-13)
    assert measured.w_std == pytest.approx(wide.std(), rel=1e-12)
    assert (measured.w_min, measured.w_max) == (wide.min(), wide.max())
    found = [measured.w_q01, measured.w_q25, measured.w_q50, measured.w_q75, measured.w_q99]
    np.testing.assert_allclose(found, np.quantile(wide, QUANTILES), rtol=1e-14, atol=1e-16)


def test_many_models_at_once_get_the_statistics_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((50, 777)).astype(np.float32)
    biases = rng.standard_normal((50, 7)).astype(np.float32)
    for b_rows in (biases, None):
        together = combine_rows(
            measure_rows(weights), None if b_rows is None else measure_rows(b_rows)
        )
        for index, row in enumerate(together):
            alone = measure_layer("w", weights[index], None if b_rows is None else b_rows[index])
            expected = [np.nan if x is None else x for x in alone.to_dict().values()]
            np.testing.assert_array_equal(row, expected)


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
@pytest.mark.parametrize("size", [5, MAX_SORTED + 5, MIN_COUNTED + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_a_value_that_is_not_finite_is_refused_with_the_layers_name(
    bad: float, where: str, dtype: type, size: int
) -> None:
    good = np.ones(size, dtype)
    broken = good.copy()
    broken[3] = bad
    arguments = (broken, good) if where == "weight" else (good, broken)
    with pytest.raises(WeightsError, match=r"finite; layer fc\.weight holds NaN") as caught:
        measure_layer("fc.weight", *arguments)
    assert caught.value.reason is Reason.NON_FINITE_WEIGHTS


@pytest.mark.parametrize("size", [5, MAX_SORTED + 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_float64_that_float32_cannot_hold_is_refused(size: int, sign: int) -> None:
    values = np.ones(size)
    values[2] = sign * float(np.finfo(np.float32).max)
    assert measure_layer("w", values, None).std > 0
    values[2] *= 1.001
    with pytest.raises(WeightsError, match=r"range of float32, 3\.4e\+38; layer fc goes") as caught:
        measure_layer("fc", values, None)
    assert caught.value.reason is Reason.WEIGHTS_OUT_OF_RANGE


def test_the_field_order_is_that_of_the_layer_table() -> None:
    assert STATISTICS_FIELDS[:4] == ("w_mean", "w_std", "w_min", "w_max")
    assert STATISTICS_FIELDS[-2:] == ("mean", "std")
