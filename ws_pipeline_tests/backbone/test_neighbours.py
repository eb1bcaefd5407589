import numpy as np
import pytest

from ws_pipeline.backbone.neighbours import find_neighbours

NAMES = ["a/one", "a/two", "b/three", "b/four"]


def population() -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((4, 6))
    vectors[:, 2] = 3.0  # does not vary
    return vectors


def test_a_model_of_the_corpus_is_its_own_nearest_neighbour():
    vectors = population()
    for index, name in enumerate(NAMES):
        first = find_neighbours(vectors[index], vectors, NAMES, num=2)[0]
        assert first.model == name
        assert first.similarity == pytest.approx(1.0)


def test_a_copy_with_a_little_noise_is_found():
    vectors = population()
    near = vectors[2] + 1e-3 * vectors.std(axis=0)
    assert find_neighbours(near, vectors, NAMES, num=1)[0].model == "b/three"


def test_similarity_is_the_cosine_of_vectors_as_they_are():
    vectors = population()
    (found,) = find_neighbours(-2.0 * vectors[1], vectors[1:2], NAMES[1:2], num=1)
    assert found.similarity == pytest.approx(-1.0)


def test_at_most_all_models_come_and_their_similarity_falls():
    found = find_neighbours(population()[0], population(), NAMES, num=9)
    assert len(found) == 4
    values = [each.similarity for each in found]
    assert values == sorted(values, reverse=True)


def test_equal_vectors_come_in_the_corpus_order():
    vectors = np.vstack([population()[:1]] * 2 + [population()[1:2]])
    found = find_neighbours(vectors[0], vectors, ["z", "a", "m"], num=2)
    assert [each.model for each in found] == ["z", "a"]
