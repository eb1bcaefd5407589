import numpy as np
import pytest

from ws_pipeline.zoo.spectra import spectral_summaries


def test_summaries_are_those_of_known_singular_values() -> None:
    weights = {
        "even": 2 * np.eye(4, dtype=np.float32),
        "flat": np.ones((3, 5), dtype=np.float32),
        "conv": np.ones((2, 3, 2, 2), dtype=np.float32),
        "bias": np.ones(4, dtype=np.float32),
        "zero": np.zeros((2, 2), dtype=np.float32),
        "count": np.ones((2, 2), dtype=np.int64),
    }
    found = {(name, metric): value for name, metric, value in spectral_summaries(weights)}
    assert {name for name, _ in found} == {"even", "flat", "conv"}
    assert found["even", "spectral_norm"] == pytest.approx(2)
    assert found["even", "stable_rank"] == found["even", "effective_rank"] == pytest.approx(4)
    assert found["flat", "spectral_norm"] == pytest.approx(15**0.5)
    assert found["conv", "spectral_norm"] == pytest.approx(24**0.5)
    assert found["flat", "effective_rank"] == pytest.approx(1)
