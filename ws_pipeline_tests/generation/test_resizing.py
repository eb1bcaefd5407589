"""A wider network computes the same, a deeper one has every layer, a foreign one is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ws_pipeline.errors import WeightsError
from ws_pipeline.generation.resizing import resize_weights
from ws_pipeline.generation.template import Template
from ws_pipeline.zoo.architectures import (
    build_module,
    describe_module,
    published_names,
    run_module,
)
from ws_pipeline.zoo.config import ARCHITECTURE_SIZES, Size
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.repos import write_repo

DATASETS = {"cnn": "digits", "mlp": "digits", "vit": "digits", "gpt2": "text"}


def make(folder: Path, architecture: str, seed: int, **sizes: Size):  # type: ignore[no-untyped-def]
    """Write an untrained repo; its template, weights, module and names."""
    dataset = load_dataset(DATASETS[architecture])
    all_sizes = {**ARCHITECTURE_SIZES[architecture], **sizes}
    module = build_module(architecture, all_sizes, dataset, seed=seed).eval()
    names = published_names(module)
    state = {names[own]: tensor for own, tensor in module.state_dict().items() if own in names}
    write_repo(folder, state, config=describe_module(module, architecture), card="")
    template, weights = Template.open(folder)
    return template, weights, module, names


def load(module: torch.nn.Module, names: dict[str, str], weights) -> None:  # type: ignore[no-untyped-def]
    tensors = {own: torch.tensor(weights[name]) for own, name in names.items()}
    module.load_state_dict(tensors, strict=False)


@pytest.mark.parametrize(
    ("architecture", "wider"),
    [
        ("mlp", {"hidden_sizes": (48, 64)}),
        ("cnn", {"channels": (12, 18, 24), "hidden_size": 36, "batch_norm": False}),
    ],
)
def test_a_wider_network_computes_what_it_did(
    tmp_path: Path, architecture: str, wider: dict[str, Size]
) -> None:
    same = {"batch_norm": False} if architecture == "cnn" else {}
    source, weights, module, _ = make(tmp_path / "a", architecture, 0, **same)
    target, own, wide, names = make(tmp_path / "b", architecture, 1, **wider)
    resized = resize_weights(source, weights, target)
    assert {name: array.shape for name, array in resized.items()} == {
        name: array.shape for name, array in own.items()
    }
    load(wide, names, resized)
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = run_module(architecture, module, images)
        np.testing.assert_allclose(run_module(architecture, wide, images), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["vit", "gpt2"])
def test_a_deeper_transformer_gets_every_layer(tmp_path: Path, architecture: str) -> None:
    source, weights, _, _ = make(tmp_path / "a", architecture, 0, num_layers=2)
    target, own, deep, names = make(tmp_path / "b", architecture, 1, num_layers=3)
    resized = resize_weights(source, weights, target)
    assert resized.keys() == own.keys()
    load(deep, names, resized)
    ends = ("0", "2")
    for name, array in resized.items():
        number = next((part for part in name.split(".") if part.isdigit()), "")
        if number in ends:
            original = name.replace(f".{number}.", f".{'1' if number == '2' else '0'}.", 1)
            np.testing.assert_array_equal(array, weights[original])


def test_a_narrower_network_keeps_units_of_the_wide_one(tmp_path: Path) -> None:
    source, weights, _, _ = make(tmp_path / "a", "mlp", 0)
    target, _, _, _ = make(tmp_path / "b", "mlp", 1, hidden_sizes=(16, 32))
    resized = resize_weights(source, weights, target)
    np.testing.assert_array_equal(resized["layers.0.weight"], weights["layers.0.weight"][::2])


def test_a_gpt2_of_another_width_keeps_queries_keys_and_values_apart(tmp_path: Path) -> None:
    source, weights, _, _ = make(tmp_path / "a", "gpt2", 0, width=16)
    target, _, _, _ = make(tmp_path / "b", "gpt2", 1, width=32)
    resized = resize_weights(source, weights, target)
    bias = "transformer.h.0.attn.c_attn.bias"
    np.testing.assert_array_equal(resized[bias], np.repeat(weights[bias], 2))
    kept = weights["transformer.h.0.attn.c_attn.weight"]
    wide = resized["transformer.h.0.attn.c_attn.weight"]
    np.testing.assert_allclose(wide[::2, ::2], kept / 2, atol=1e-7)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    source, weights, _, _ = make(tmp_path / "a", "mlp", 0)
    target, _, _, _ = make(tmp_path / "b", "cnn", 1)
    with pytest.raises(WeightsError, match=r"bn1.weight has none.*same architecture"):
        resize_weights(source, weights, target)
