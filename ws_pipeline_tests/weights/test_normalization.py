"""Scales: mean and std come back to rounding."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ws_pipeline.weights.normalization import (
    MIN_STD,
    denormalize_layer,
    log_std,
    normalize_layer,
)


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
