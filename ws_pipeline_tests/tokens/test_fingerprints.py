"""Fingerprints: the same weights in another guise are found, others are not."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_pipeline.tokens.fingerprints import (
    Fingerprint,
    NearIndex,
    measure_distance,
    read_fingerprints,
)
from ws_pipeline_tests.tokens.corpus_tables import Weights, layers_frame, make_layers, make_weights


def fingerprint(weights: Weights, role: str = "linear") -> Fingerprint:
    row = make_layers(0, weights)
    row["layers"] = [layer | {"role": role} for layer in row["layers"]]
    return read_fingerprints(layers_frame([row]))["id0"]


def test_names_the_order_of_layers_and_the_order_in_a_layer_do_not_count() -> None:
    weights = make_weights(1)
    generator = np.random.default_rng(0)
    disguised = {
        f"other{i}": generator.permutation(values.ravel()).reshape(values.shape)
        for i, values in enumerate(reversed(weights.values()))
    }
    assert fingerprint(disguised).key == fingerprint(weights).key


def test_one_other_number_is_another_model() -> None:
    weights = make_weights(1)
    changed = weights | {"layers.0.weight": weights["layers.0.weight"].copy()}
    changed["layers.0.weight"][3, 3] += 0.01
    assert fingerprint(changed).key != fingerprint(weights).key


def test_what_is_not_tokenised_does_not_count() -> None:
    row = make_layers(0, make_weights(1))
    more = make_layers(0, make_weights(1) | {"bn.running_mean": np.ones((1, 4), np.float32)})
    more["layers"][-1]["treatment"] = "carried"
    first, second = (read_fingerprints(layers_frame([r]))["id0"] for r in (row, more))
    assert first.key == second.key


def test_a_bias_is_a_column() -> None:
    row = make_layers(0, make_weights(1, num_layers=1))
    row["layers"][0]["bias_name"] = "layers.0.bias"
    assert read_fingerprints(layers_frame([row]))["id0"].shapes == ((16, 33),)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_rounded_copy_is_near_and_another_model_is_not(dtype: type) -> None:
    weights = make_weights(1)
    rounded = {name: v.astype(dtype).astype(np.float32) for name, v in weights.items()}
    original = fingerprint(weights)
    assert 0.0 < measure_distance(original, fingerprint(rounded)) < 0.006
    assert measure_distance(original, fingerprint(make_weights(2))) > 0.02


@given(st.integers(0, 10**6), st.floats(1e-4, 0.3))
@settings(max_examples=50, deadline=None)
def test_the_distance_of_moments_never_exceeds_that_of_the_weights(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(generator.normal(), 1.0, (8, 16))
    other = values + share * generator.normal(generator.normal(), 1.0, values.shape)
    one, two = (fingerprint({"w": v.astype(np.float64)}) for v in (values, other))
    moments = np.abs(one.values - two.values)[:, :2]
    true_distance = np.sqrt(np.mean((values - other) ** 2))
    assert np.hypot(*moments[0]) <= true_distance * (1 + 1e-9)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=12, unique=True))
@settings(max_examples=30, deadline=None)
def test_the_index_finds_what_comparing_all_pairs_finds(steps: list[int]) -> None:
    base = make_weights(1)
    models = {
        f"id{step}": fingerprint({name: v * (1 + 0.004 * step) for name, v in base.items()})
        for step in steps
    }
    index = NearIndex(distance=0.01)
    for hub_id, model in models.items():
        index.add(hub_id, model)
    for model in models.values():
        found = {hub_id for _, hub_id in index.find(model)}
        assert found == {h for h, m in models.items() if measure_distance(model, m) <= 0.01}


def test_other_shapes_are_never_near() -> None:
    index = NearIndex(distance=0.5)
    index.add("id0", fingerprint(make_weights(1)))
    assert index.find(fingerprint(make_weights(1, num_layers=2))) == []


def test_only_layers_that_learned_something_prove_kinship() -> None:
    generator = np.random.default_rng(1)
    noise = {"w": generator.normal(size=(8, 8)).astype(np.float32)}
    assert list(fingerprint(noise).proofs.values()) == [64]
    assert not fingerprint(noise, role="position_table").proofs
    assert not fingerprint({"w": noise["w"][:7]}).proofs
    assert not fingerprint({"w": np.sign(noise["w"])}).proofs
    assert not fingerprint({"w": np.ones((20, 20), np.float32)}).proofs


def test_constant_models_are_told() -> None:
    assert fingerprint({"w": np.zeros((4, 4), np.float32)}).is_constant
    assert not fingerprint(make_weights(1)).is_constant


def test_no_models_have_no_fingerprints() -> None:
    assert read_fingerprints(layers_frame([])) == {}
