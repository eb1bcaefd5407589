"""A permuted model computes the same function; what is not known is not permuted."""

import numpy as np
import pytest
import torch
from torch import nn

from ws_pipeline.weights.symmetry.finding import find_symmetry
from ws_pipeline.weights.symmetry.groups import Symmetry
from ws_pipeline.weights.symmetry.permutation import (
    draw_permutation,
    invert_permutation,
    permute_state,
)
from ws_pipeline.weights.symmetry.transformers import STREAM
from ws_pipeline_tests.weights.symmetry.networks import KINDS, Arrays, Network, build_network

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
RMS_TOLERANCE = 1e-6
"""The library takes root mean squares in float32 whatever the model's dtype, so that the order of
the residual stream shows there in rounding."""
RMS_KINDS = ("llama", "mistral", "qwen", "gemma", "t5")


def shapes_of(state: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in state.items()}


def change_of(network: Network, state: Arrays, expected: torch.Tensor) -> float:
    network.write(state)
    return float((network.run() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_network_computes_the_same(kind: str, dtype: torch.dtype) -> None:
    network = build_network(kind, dtype)
    state, expected = network.read(), network.run()
    shapes = shapes_of(state)
    symmetry = find_symmetry(shapes, network.config)
    moved: set[str] = set()
    for group in symmetry.groups:
        alone = Symmetry(groups=(group,))
        permutation = draw_permutation(alone, shapes, generator=np.random.default_rng(1))
        is_rounded = group.name == STREAM and kind.startswith(RMS_KINDS)
        tolerance = max(TOLERANCES[dtype], RMS_TOLERANCE if is_rounded else 0.0)
        assert change_of(network, permute_state(state, permutation), expected) < tolerance
    permutation = draw_permutation(symmetry, shapes, generator=np.random.default_rng(5))
    permuted = permute_state(state, permutation)
    tolerance = max(TOLERANCES[dtype], RMS_TOLERANCE if kind.startswith(RMS_KINDS) else 0.0)
    assert change_of(network, permuted, expected) < tolerance
    moved = {name for name in state if not np.array_equal(permuted[name], state[name])}
    assert moved <= symmetry.tensors
    assert len(moved) > 0.9 * len(symmetry.tensors)
    restored = permute_state(permuted, invert_permutation(permutation))
    assert all(np.array_equal(restored[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("kind", "inside", "stream"),
    [
        ("mlp", ["layers.0", "layers.1"], False),
        ("cnn_batchnorm", ["conv1", "conv2", "conv3", "fc1"], False),
        ("vit", ["vit.encoder.layer.0.attention.output.dense"], True),
        ("vit_model", ["encoder.layer.1.intermediate.dense"], False),
        ("t5", ["encoder.layer.0.SelfAttention.o", "decoder.layer.0.SelfAttention.o"], True),
        ("torch_resnet18", ["stream.0", "layer1.0.conv1", "stream.3"], False),
    ],
)
def test_groups_are_named_by_where_they_are(kind: str, inside: list[str], stream: bool) -> None:
    network = build_network(kind)
    shapes = shapes_of(network.read())
    names = [group.name for group in find_symmetry(shapes, network.config).groups]
    assert set(inside) <= set(names)
    assert (STREAM in names) == stream
    names = [g.name for g in find_symmetry(shapes, network.config, stream=False).groups]
    assert set(inside) <= set(names)
    assert STREAM not in names


def test_every_tensor_of_a_whole_transformer_follows_its_stream() -> None:
    for kind in ("vit", "bert_mlm", "gpt2", "llama", "t5"):
        network = build_network(kind)
        shapes = shapes_of(network.read())
        left = set(shapes) - find_symmetry(shapes, network.config).tensors
        assert all(name.endswith("bias") and shapes[name] != (16,) for name in left), left


def test_fewer_key_heads_keep_their_query_heads_together() -> None:
    network = build_network("mistral_gqa")
    shapes = shapes_of(network.read())
    groups = {group.name: group for group in find_symmetry(shapes, network.config).groups}
    heads = groups["model.layers.0.self_attn.o_proj"]
    assert heads.size == 2
    children = {child.name.rpartition(".")[2]: child.size for child in heads.children}
    assert children == {"values": 8, "queries": 3}  # and no keys: rotation fixes their places


def test_channels_that_are_padded_stay_and_blocks_do_not() -> None:
    network = build_network("torch_resnet_option_a")
    symmetry = find_symmetry(shapes_of(network.read()), network.config)
    assert [group.name for group in symmetry.groups] == [
        "layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.1.conv1",
    ]  # fmt: skip
    assert any("without a projection" in gap for gap in symmetry.gaps)


@pytest.mark.parametrize(
    ("kind", "extra", "gap"),
    [
        ("mlp", {"skip.weight": (3, 3)}, "not those of a chain: skip.weight"),
        ("cnn", {"conv4.weight": (3, 3, 1, 1)}, "not those of a chain: conv4.weight"),
        ("torch_resnet18", {"layer1.0.se.weight": (8, 8)}, "no tensor layer1.0.se.weight"),
        ("vit", {"vit.encoder.layer.0.adapter.weight": (9, 16)}, "adapter.weight is not known"),
        ("gpt2", {"transformer.h.0.crossattention.c_attn.weight": (16, 32)}, "is not known"),
        ("llama", {"visual.weight": (16, 16)}, "stream: visual.weight is not known"),
    ],
)
def test_a_tensor_that_is_not_known_leaves_its_surroundings_alone(
    kind: str, extra: dict[str, tuple[int, ...]], gap: str
) -> None:
    network = build_network(kind)
    shapes = shapes_of(network.read())
    symmetry = find_symmetry({**shapes, **extra}, network.config)
    assert any(gap in reason for reason in symmetry.gaps)
    before = {group.name for group in find_symmetry(shapes, network.config).groups}
    after = {group.name for group in symmetry.groups}
    assert after < before
    assert STREAM not in after
    assert not any(name.startswith("vit.encoder.layer.0.") for name in after)


@pytest.mark.parametrize("kind", ["torch_resnet18", "resnet18"])
def test_a_norm_that_may_be_over_groups_of_channels_permutes_nothing(kind: str) -> None:
    network = build_network(kind)
    shapes = {n: s for n, s in shapes_of(network.read()).items() if "running" not in n}
    symmetry = find_symmetry(shapes, network.config)
    assert symmetry.groups == ()
    assert "does not normalise the outputs" in symmetry.gaps[0]


def test_old_files_are_known_by_their_own_names() -> None:
    bert = build_network("bert_mlm")
    shapes = shapes_of(bert.read())
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): s
        for name, s in shapes.items()
    }
    old |= {"cls.seq_relationship.weight": (2, 16), "cls.seq_relationship.bias": (2,)}
    old |= {"bert.embeddings.position_ids": (1, 20)}
    old |= {"bert.pooler.dense.weight": (16, 16), "bert.pooler.dense.bias": (16,)}
    sizes = [(g.name, g.size) for g in find_symmetry(shapes, bert.config).groups]
    found = find_symmetry(old, bert.config)
    assert [(group.name, group.size) for group in found.groups] == sizes
    assert not found.gaps
    gpt2 = build_network("gpt2")
    shapes = shapes_of(gpt2.read())
    old = {n.removeprefix("transformer."): s for n, s in shapes.items() if n != "lm_head.weight"}
    old |= {"h.0.attn.bias": (1, 1, 20, 20), "h.1.attn.bias": (1, 1, 20, 20)}
    found = find_symmetry(old, gpt2.config)
    assert len(found.groups) == len(find_symmetry(shapes, gpt2.config).groups)
    assert not found.gaps


def test_an_attention_whose_heads_the_config_does_not_count_has_none() -> None:
    network = build_network("bert_mlm")
    config = {**network.config, "num_attention_heads": 5}
    symmetry = find_symmetry(shapes_of(network.read()), config)
    assert not any(group.children for group in symmetry.groups)
    assert any("how many heads" in gap for gap in symmetry.gaps)


def test_an_unknown_model_has_no_group_and_a_reason() -> None:
    symmetry = find_symmetry({"a.weight": (3, 4), "b.weight": (2, 3)}, {"model_type": "secret"})
    assert symmetry.groups == ()
    assert symmetry.gaps == ("no wiring is known of model_type 'secret'",)


def test_a_model_with_code_of_its_own_is_left_alone() -> None:
    network = build_network("llama")
    config = {**network.config, "auto_map": {"AutoModel": "modeling.Other"}}
    assert not find_symmetry(shapes_of(network.read()), config).groups


def test_a_sequential_is_one_only_on_the_callers_word() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(),
        nn.Linear(6 * 16, 7), nn.Tanh(), nn.Linear(7, 2),
    ).double()  # fmt: skip
    network = Network(module=module, config={}, inputs={"input": torch.randn(3, 3, 8, 8)})
    state, expected = network.read(), network.run()
    shapes = shapes_of(state)
    assert not find_symmetry(shapes, {}).groups
    symmetry = find_symmetry(shapes, {}, sequential=True)
    assert [(group.name, group.size) for group in symmetry.groups] == [("0", 4), ("3", 6), ("5", 7)]
    permutation = draw_permutation(symmetry, shapes, generator=np.random.default_rng(0))
    assert change_of(network, permute_state(state, permutation), expected) < 1e-12
    grouped = {**shapes, "3.weight": (6, 2, 3, 3)}
    assert "0" not in {group.name for group in find_symmetry(grouped, {}, sequential=True).groups}
