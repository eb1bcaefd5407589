"""Scales: a power of two is exact or not taken; mean and std come back to rounding."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ws_pipeline.weights.normalization import (
    MIN_STD,
    choose_scale_exponent,
    denormalize_layer,
    log_std,
    normalize_layer,
    scale_layer,
    unscale_layer,
)

DTYPES = [
    np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz,
]  # fmt: skip


@st.composite
def finite_bits(draw: st.DrawFn) -> npt.NDArray[Any]:
    """Any finite bit patterns of any dtype: zeros of both signs, subnormals, the largest."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    bits = draw(hnp.arrays(f"u{dtype.itemsize}", st.integers(1, 20)))
    values = bits.view(dtype)
    with np.errstate(all="ignore"):
        wide = values if dtype.itemsize >= 4 else values.astype(np.float32)
    return np.where(np.isfinite(wide), values, np.zeros_like(values))


@given(finite_bits(), st.integers(-160, 160))
def test_scaling_is_exact_to_the_bit_or_not_done(values: npt.NDArray[Any], exponent: int) -> None:
    scaled, used = scale_layer(values, exponent)
    assert used in {0, exponent}
    assert scaled.dtype == values.dtype
    assert unscale_layer(scaled, used).tobytes() == values.tobytes()


def test_ordinary_weights_are_scaled_to_a_spread_near_one() -> None:
    weights = (0.02 * np.random.default_rng(0).standard_normal(1000)).astype(np.float32)
    exponent = choose_scale_exponent(float(weights.std()))
    scaled, used = scale_layer(weights, exponent)
    assert used == exponent == -6
    assert 0.7 < scaled.std() < 1.42
    np.testing.assert_array_equal(scaled, weights * 64)


@pytest.mark.parametrize(
    ("std", "exponent"),
    [(1.0, 0), (0.02, -6), (3.0, 2), (0.0, 0), (float("inf"), 0), (1e-300, -997)],
)
def test_the_exponent_is_the_nearest_power_of_two(std: float, exponent: int) -> None:
    assert choose_scale_exponent(std) == exponent


def test_a_half_precision_layer_that_would_overflow_is_left_alone() -> None:
    values = np.array([60000.0, 1e-4], dtype=np.float16)
    assert scale_layer(values, -4)[1] == 0


@given(
    hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e10, 1e10, width=32)),
    st.floats(-1e10, 1e10),
    st.floats(0, 1e10),
)
def test_denormalizing_undoes_normalizing_to_rounding(
    values: npt.NDArray[np.float32], mean: float, std: float
) -> None:
    again = denormalize_layer(normalize_layer(values, mean, std), mean, std)
    largest = max(float(np.abs(values).max()), abs(mean))
    np.testing.assert_allclose(again, values, rtol=0, atol=4 * np.finfo(np.float64).eps * largest)


def test_a_constant_layer_becomes_zero_and_comes_back() -> None:
    values = np.full(7, 0.1, np.float32)
    normalized = normalize_layer(values, float(values[0]), 0.0)
    assert not normalized.any()
    np.testing.assert_array_equal(
        denormalize_layer(normalized, float(values[0]), 0.0).astype(np.float32), values
    )
    assert log_std(0.0) == pytest.approx(np.log(MIN_STD))
