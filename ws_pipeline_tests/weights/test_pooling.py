import numpy as np

from ws_pipeline.weights.pooling import POOLING, pool_layers


def test_pooling_is_six_statistics_over_layers_one_after_the_other():
    layers = np.random.default_rng(0).normal(size=(7, 3))
    expected = [part(layers, axis=0) for part in (np.mean, np.std, np.min, np.max)]
    expected += [layers[0], layers[-1]]
    assert len(expected) == len(POOLING)
    np.testing.assert_allclose(pool_layers(layers), np.concatenate(expected))


def test_pooling_no_layers_gives_zeros():
    assert pool_layers(np.zeros((0, 5))).tolist() == [0.0] * 30
