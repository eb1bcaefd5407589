"""Alignment finds a permuted copy, never moves away, and depends on its generator alone."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_pipeline.weights.symmetry.alignment import align_model
from ws_pipeline.weights.symmetry.finding import find_symmetry
from ws_pipeline.weights.symmetry.groups import Symmetry
from ws_pipeline.weights.symmetry.permutation import draw_permutation, permute_state
from ws_pipeline_tests.weights.symmetry.networks import KINDS, Arrays, Network, build_network


def shapes_of(state: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in state.items()}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "blocks"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_copy_is_recovered_to_the_bit(kind: str, stream: bool) -> None:
    network = build_network(kind)
    state = network.read()
    symmetry = find_symmetry(shapes_of(state), network.config, stream=stream)
    for seed in range(2):
        generator = np.random.default_rng(seed)
        drawn = draw_permutation(symmetry, shapes_of(state), generator=generator)
        permuted = permute_state(state, drawn)
        found = align_model(state, permuted, symmetry, generator=generator)
        restored = permute_state(permuted, found.permutation)
        assert all(np.array_equal(restored[name], state[name]) for name in state)
        assert found.distance_after == 0.0
        assert found.distance_before > 0.0


@pytest.mark.parametrize("kind", ["mlp", "cnn_batchnorm", "resnet18", "vit", "gpt2", "mistral_gqa"])
def test_two_models_only_come_closer_and_keep_their_functions(kind: str) -> None:
    network = build_network(kind)
    reference = network.read()
    generator = np.random.default_rng(0)
    model = {
        name: (array + generator.normal(0.0, 0.2, array.shape)).astype(array.dtype)
        if array.dtype.kind == "f" and "running" not in name
        else array
        for name, array in draw_and_permute(reference, network, generator).items()
    }
    if kind == "gpt2":
        model["lm_head.weight"] = model["transformer.wte.weight"]  # tied
    network.write(model)
    expected = network.run()
    symmetry = find_symmetry(shapes_of(reference), network.config)
    found = align_model(reference, model, symmetry, generator=np.random.default_rng(1))
    aligned = permute_state(model, found.permutation)
    counted = [n for n, a in model.items() if a.dtype.kind == "f" and "running" not in n]
    before, after = (
        np.sqrt(sum(np.sum((reference[n] - state[n]) ** 2) for n in counted))
        for state in (model, aligned)
    )
    assert found.distance_before == pytest.approx(before)
    assert found.distance_after == pytest.approx(after)
    assert after < 0.8 * before
    network.write(aligned)
    assert (network.run() - expected).abs().max() < 1e-6 * expected.abs().max()
    again = align_model(reference, model, symmetry, generator=np.random.default_rng(1))
    assert again.permutation.keys() == found.permutation.keys()
    assert all(
        np.array_equal(again.permutation[k], found.permutation[k]) for k in found.permutation
    )
    back = align_model(reference, aligned, symmetry, generator=np.random.default_rng(2))
    assert back.distance_after <= found.distance_after


def draw_and_permute(state: Arrays, network: Network, generator: np.random.Generator) -> Arrays:
    symmetry = find_symmetry(shapes_of(state), network.config)
    return permute_state(state, draw_permutation(symmetry, shapes_of(state), generator=generator))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_strangers_never_end_further_apart(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shapes = {"layers.0.weight": (6, 3), "layers.0.bias": (6,), "layers.1.weight": (5, 6)}
    shapes |= {"layers.2.weight": (2, 5)}
    symmetry = find_symmetry(shapes, {"model_type": "mlp", "architectures": ["Mlp"]})
    one, other = (
        {name: generator.normal(size=shape).astype("f4") for name, shape in shapes.items()}
        for _ in range(2)
    )
    found = align_model(one, other, symmetry, generator=generator)
    moved = permute_state(other, found.permutation)
    before, after = (
        sum(float(np.sum((one[n] - s[n]) ** 2, dtype=np.float64)) for n in shapes)
        for s in (other, moved)
    )
    assert after <= before * (1 + 1e-6)
    assert found.distance_after <= found.distance_before


def test_half_precision_is_compared_and_moved_as_it_is() -> None:
    network = build_network("llama")
    state = {name: array.astype(ml_dtypes.bfloat16) for name, array in network.read().items()}
    symmetry = find_symmetry(shapes_of(state), network.config)
    generator = np.random.default_rng(0)
    permuted = permute_state(
        state, draw_permutation(symmetry, shapes_of(state), generator=generator)
    )
    found = align_model(state, permuted, symmetry, generator=generator)
    restored = permute_state(permuted, found.permutation)
    assert all(restored[n].tobytes() == state[n].tobytes() for n in state)


def test_models_of_other_shapes_are_refused() -> None:
    one, other = {"a": np.zeros(3)}, {"a": np.zeros(4)}
    with pytest.raises(ValueError, match="a must have the same shape"):
        align_model(one, other, Symmetry(), generator=np.random.default_rng(0))
