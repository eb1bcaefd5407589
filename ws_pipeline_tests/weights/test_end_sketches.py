import numpy as np

from ws_pipeline.weights.end_sketches import (
    NUM_KINDS,
    SKETCH_SIZE,
    sketch_gram,
    sketch_model,
)
from ws_pipeline.weights.layer_matrix import LayerMatrix


def network(seed: int, *, noise: float = 0.0) -> list[LayerMatrix]:
    rng, own = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    shapes = {"first": (24, 11), "norm": (24, 2), "hidden": (16, 25), "last": (5, 17)}
    return [
        LayerMatrix(
            name=name,
            role="norm_scale" if name == "norm" else "linear",
            values=rng.normal(size=shape) + noise * own.normal(size=shape),
        )
        for name, shape in shapes.items()
    ]


def permute(layers: list[LayerMatrix], rng: np.random.Generator) -> list[LayerMatrix]:
    """Reorder the hidden units of both hidden layers; biases are the last columns."""
    one, two = rng.permutation(24), rng.permutation(16)
    moved = {
        "first": layers[0].values[one],
        "norm": layers[1].values[one],
        "hidden": layers[2].values[two][:, [*one, 24]],
        "last": layers[3].values[:, [*two, 16]],
    }
    return [LayerMatrix(name=each.name, role=each.role, values=moved[each.name]) for each in layers]


def test_no_order_of_hidden_units_changes_the_code():
    layers = network(0)
    moved = permute(layers, np.random.default_rng(1))
    np.testing.assert_allclose(sketch_model(moved), sketch_model(layers), atol=1e-12)


def test_a_permuted_fine_tune_is_nearest_to_its_parent():
    parents = np.array([sketch_model(network(seed)) for seed in range(30)])
    for seed in range(30):
        child = permute(network(seed, noise=0.2), np.random.default_rng(seed))
        distances = np.linalg.norm(parents - sketch_model(child), axis=1)
        assert distances.argmin() == seed


def test_the_order_of_inputs_does_change_it():
    layers = network(0)
    shuffled = LayerMatrix(name="first", role="linear", values=layers[0].values[:, ::-1])
    assert np.abs(sketch_model([shuffled, *layers[1:]]) - sketch_model(layers)).max() > 0.01


def test_words_make_the_first_map_a_hidden_one():
    words = LayerMatrix(name="words", role="embedding", values=np.eye(9, 6))
    kinds = sketch_model([words, *network(0)]).reshape(NUM_KINDS, SKETCH_SIZE)
    assert np.linalg.norm(kinds, axis=1)[1] == 0.0
    assert np.linalg.norm(kinds, axis=1)[0] > 0.1


def test_empty_and_zero_models_are_zeros():
    zeros = LayerMatrix(name="a", role="linear", values=np.zeros((6, 6)))
    assert not sketch_model([]).any()
    assert not sketch_model([zeros]).any()


def test_scale_does_not_count():
    matrix = np.random.default_rng(2).normal(size=(7, 9))
    np.testing.assert_allclose(sketch_gram(1e6 * matrix), sketch_gram(matrix))


def test_a_network_with_one_output_has_no_hidden_units_in_its_code():
    layers = network(0)
    narrow = LayerMatrix(name="last", role="linear", values=layers[-1].values[:1])
    one, other = (
        sketch_model([*each[:-1], LayerMatrix(name="last", role="linear", values=last)])
        for each, last in (
            (layers, narrow.values),
            (permute(layers, np.random.default_rng(2)), narrow.values),
        )
    )
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_a_tall_table_is_sketched_block_by_block_as_in_one_go():
    tall = np.random.default_rng(3).normal(size=(9_000, 3))
    draws = np.random.default_rng(9_000)
    blocks = [draws.standard_normal((2, SKETCH_SIZE, size)) for size in (8_192, 808)]
    left, right = np.concatenate(blocks, axis=2)
    expected = np.einsum("kr,rc,sc,ks->k", left, tall, tall, right, optimize=True)
    expected /= np.linalg.norm(tall.T @ tall) * SKETCH_SIZE**0.5
    np.testing.assert_allclose(sketch_gram(tall), expected)


def test_numbers_that_barely_fit_are_sketched_alike():
    matrix = np.random.default_rng(2).normal(size=(7, 9))
    for factor in (1e-38, 1e38):
        np.testing.assert_allclose(sketch_gram(factor * matrix), sketch_gram(matrix))
