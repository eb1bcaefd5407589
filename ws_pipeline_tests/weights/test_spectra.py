import numpy as np
import pytest

from ws_pipeline.weights.spectra import (
    LEAST_NORM,
    MAX_SIDE,
    SPECTRUM_NAMES,
    describe_layer,
)


def named(values: np.ndarray) -> dict[str, float]:
    return dict(zip(SPECTRUM_NAMES, describe_layer(values), strict=True))


def test_permuting_rows_and_columns_changes_nothing():
    rng = np.random.default_rng(0)
    matrix = rng.standard_t(3, size=(20, 33))
    moved = matrix[rng.permutation(20)][:, rng.permutation(33)]
    np.testing.assert_allclose(describe_layer(moved), describe_layer(matrix), atol=1e-9)


def test_singular_values_and_ranks_are_numpys():
    matrix = np.random.default_rng(1).normal(size=(9, 30))
    singular = np.linalg.svd(matrix, compute_uv=False)
    found = named(matrix)
    assert found["log_largest"] == pytest.approx(np.log(singular[0]))
    assert found["half"] == pytest.approx(np.median(singular) / singular[0])
    assert found["stable_rank"] == pytest.approx((singular**2).sum() / singular[0] ** 2 / 9)
    assert named(np.outer(np.arange(1.0, 5), np.arange(1.0, 8)))["entropy_rank"] == pytest.approx(
        1 / 4
    )


def test_scale_moves_only_logarithms():
    matrix = np.random.default_rng(2).normal(size=(6, 5))
    change = describe_layer(1e200 * matrix) - describe_layer(1e100 * matrix)
    logs = {"log_rms", "log_largest", *SPECTRUM_NAMES[13:23]}
    expected = [
        np.sign(np.quantile(matrix, float(f"0.{name[1:]}")))
        if name[1:].isdigit()
        else np.sign(matrix.mean())
        if name == "mean"
        else float(name in logs)
        for name in SPECTRUM_NAMES
    ]
    np.testing.assert_allclose(change / np.log(1e100), expected, atol=1e-9)


def test_mean_and_quantiles_of_small_weights_are_those_of_the_weights():
    matrix = 1e-6 * np.random.default_rng(4).normal(size=(30, 20))
    found = named(matrix)
    assert found["mean"] == pytest.approx(matrix.mean(), rel=1e-5)
    assert found["q99"] == pytest.approx(np.quantile(matrix, 0.99), rel=1e-5)


def test_norms_of_rows_and_columns_are_described_by_their_quartiles():
    matrix = np.diag([1.0, 2.0, 4.0, 8.0, 16.0])[:, :4]
    found = named(matrix)
    assert found["row_median"] == pytest.approx(np.log(2))
    assert found["column_most"] == pytest.approx(np.log(8))
    assert found["row_least"] == pytest.approx(np.log(LEAST_NORM * 3))


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.zeros((1, 1)), np.ones((1, 1))])
def test_degenerate_layers_are_finite(values):
    assert np.isfinite(describe_layer(values)).all()


def test_a_layer_beyond_the_bound_is_sampled():
    wide = np.random.default_rng(3).normal(size=(MAX_SIDE + 1, MAX_SIDE + 1))
    assert np.isfinite(describe_layer(wide)).all()
