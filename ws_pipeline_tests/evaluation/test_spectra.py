import numpy as np
import polars as pl
import pytest

from ws_pipeline.evaluation.model_weights import LayerMatrix
from ws_pipeline.evaluation.spectra import (
    MAX_SIDE,
    SPECTRUM_NAMES,
    describe_layer,
    describe_model,
    flat_weights,
    spectral_features,
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


def test_scale_moves_only_the_two_logarithms():
    matrix = np.random.default_rng(2).normal(size=(6, 5))
    change = describe_layer(1e200 * matrix) - describe_layer(matrix)
    expected = np.where([name in {"log_rms", "log_largest"} for name in SPECTRUM_NAMES], 1.0, 0.0)
    np.testing.assert_allclose(change / np.log(1e200), expected, atol=1e-9)


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.zeros((1, 1)), np.ones((1, 1))])
def test_degenerate_layers_are_finite(values):
    assert np.isfinite(describe_layer(values)).all()


def test_a_layer_beyond_the_bound_is_sampled():
    wide = np.random.default_rng(3).normal(size=(MAX_SIDE + 1, MAX_SIDE + 1))
    assert np.isfinite(describe_layer(wide)).all()


def test_models_become_rows_and_flat_weights_need_equal_shapes():
    layers = [LayerMatrix(name="a", role="linear", values=np.eye(2))]
    plan = [{"name": "a", "rows": 2, "cols": 2}]
    corpus = pl.DataFrame(
        {"shard_sha256": ["x", "y"], "layers": [plan, plan], "num_values": [4, 4]}
    )
    table = spectral_features(corpus, lambda _: iter(layers))
    np.testing.assert_array_equal(table.values[1], describe_model(layers))
    assert not describe_model([]).any()
    flat = flat_weights(corpus, lambda _: iter(layers))
    assert flat is not None
    assert flat.values.tolist() == [[1.0, 0.0, 0.0, 1.0]] * 2
    other = corpus.with_columns(num_values=pl.Series([4, 6]))
    assert flat_weights(other, lambda _: iter(layers)) is None
