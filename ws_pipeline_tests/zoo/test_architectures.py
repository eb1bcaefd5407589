"""Published repos load with their own classes and do what their cards say."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors import safe_open

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.zoo.architectures import ARCHITECTURES, build_module, load_model
from ws_pipeline.zoo.config import ARCHITECTURE_SIZES
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.heads import HEAD_PREFIXES, head_names
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.modules import Cnn, ResNet18


def accuracy_of(repo: Path, dataset_name: str) -> float:
    """Load a repo as anybody would and take its accuracy on the test set."""
    module = load_model(repo)
    dataset = load_dataset(dataset_name)
    with torch.no_grad():
        if isinstance(dataset, LabelledDataset):
            logits = module(torch.from_numpy(dataset.test_inputs))
            labels = torch.from_numpy(dataset.test_labels)
        else:
            text = torch.from_numpy(dataset.test)
            places = torch.arange(128)[:, None] * 32 + torch.arange(32)
            logits, labels = module(text[places]), text[places + 1]
    logits = logits if isinstance(logits, torch.Tensor) else logits.logits
    return float((logits.argmax(-1) == labels).double().mean())


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2", "vit-low"])
def test_transformers_loads_the_repo_and_reproduces_its_accuracy(
    name: str, transformers_folder: Path
) -> None:
    rows = read_index(transformers_folder).filter(pl.col("population") == name)
    for repo, dataset, accuracy in rows.select("name", "dataset", "accuracy").iter_rows():
        loaded = accuracy_of(transformers_folder / "repos" / repo, dataset)
        assert loaded == pytest.approx(accuracy, abs=1e-6)


def test_our_own_classes_load_and_reproduce_their_accuracy(tiny_folder: Path) -> None:
    for repo, dataset, accuracy in (
        read_index(tiny_folder).select("name", "dataset", "accuracy").iter_rows()
    ):
        loaded = accuracy_of(tiny_folder / "repos" / repo, dataset)
        assert loaded == pytest.approx(accuracy, abs=1e-6)


def test_published_names_are_those_that_save_pretrained_writes(
    transformers_folder: Path, tmp_path: Path
) -> None:
    for repo in read_index(transformers_folder)["name"]:
        folder = transformers_folder / "repos" / repo
        load_model(folder).save_pretrained(tmp_path / repo)  # type: ignore[operator]
        with (
            safe_open(folder / "model.safetensors", "pt") as ours,
            safe_open(tmp_path / repo / "model.safetensors", "pt") as theirs,
        ):
            assert sorted(ours.keys()) == sorted(theirs.keys())
            assert ours.metadata() == theirs.metadata()
            for key in list(ours.keys()):
                assert torch.equal(ours.get_tensor(key), theirs.get_tensor(key))


def test_a_module_follows_its_seed_alone() -> None:
    dataset = load_dataset("digits")
    sizes = ARCHITECTURE_SIZES["mlp"]
    torch.manual_seed(5)
    first = build_module("mlp", sizes, dataset, seed=1).state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn), "the caller's random stream must not move"
    again = build_module("mlp", sizes, dataset, seed=1).state_dict()
    other = build_module("mlp", sizes, dataset, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_an_architecture_refuses_data_it_cannot_read() -> None:
    with pytest.raises(ConfigError, match="'vit' learns from images, data set 'text' has text"):
        build_module("vit", ARCHITECTURE_SIZES["vit"], load_dataset("text"), seed=0)


def test_heads_are_the_output_layers() -> None:
    names = ["layers.0.weight", "layers.1.weight", "layers.1.bias", "layers.10.bias"]
    assert head_names("mlp", names) == ["layers.10.bias"]
    vit = ["vit.x", "vit.pooler.dense.bias", "classifier.weight"]
    assert head_names("vit", vit) == vit[1:]
    with pytest.raises(ConfigError, match="'gpt2' has no output layer of its own"):
        head_names("gpt2", names)


def test_every_architecture_has_sizes_and_the_other_way_round() -> None:
    assert ARCHITECTURES.keys() == ARCHITECTURE_SIZES.keys() == HEAD_PREFIXES.keys()


@pytest.mark.parametrize(("width", "num_params"), [(64, 11_173_962), (16, 701_466)])
def test_resnet18_has_the_published_size_and_torchvisions_names(
    width: int, num_params: int
) -> None:
    module = ResNet18(width=width, num_labels=10, activation="relu")
    assert sum(parameter.numel() for parameter in module.parameters()) == num_params
    names = module.state_dict().keys()
    assert {"conv1.weight", "layer1.0.bn2.running_var", "layer4.1.conv2.weight"} <= names
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.bias", "fc.bias"} <= names
    assert not any(name.startswith("layer1.0.downsample") for name in names)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("sizes", "num_params"),
    [
        (
            {
                "image_size": 28,
                "channels": (8, 6, 4),
                "kernel_sizes": (5, 5, 2),
                "pools": (1, 2),
                "hidden_size": 20,
            },
            2_464,
        ),
        (
            {
                "image_size": 32,
                "num_channels": 3,
                "channels": (16, 32, 15),
                "pools": (1, 2, 3),
                "hidden_size": 20,
            },
            10_853,
        ),
    ],
)
def test_the_published_cnns_have_their_published_sizes(
    sizes: dict[str, Any], num_params: int
) -> None:
    module = Cnn(num_labels=10, activation="relu", batch_norm=False, padding=0, **sizes)
    assert sum(parameter.numel() for parameter in module.parameters()) == num_params
    images = torch.zeros(2, sizes.get("num_channels", 1), sizes["image_size"], sizes["image_size"])
    assert module(images).shape == (2, 10)
    with pytest.raises(ConfigError, match="Images of 4 must be larger"):
        Cnn(
            num_labels=10,
            activation="relu",
            batch_norm=False,
            padding=0,
            **sizes | {"image_size": 4},
        )


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"must hold a config\.json"):
        load_model(tmp_path)


def test_a_cnn_of_the_first_zoos_has_the_config_json_that_it_had_then() -> None:
    """Published files stay as they are, and a new argument is said where it counts."""
    common = {"channels": (4, 6, 8), "hidden_size": 16, "num_labels": 10, "activation": "relu"}
    first = Cnn(image_size=8, batch_norm=True, **common)
    assert set(first.config) == {
        "image_size", "channels", "hidden_size", "num_labels", "activation", "batch_norm",
    }  # fmt: skip
    later = Cnn(image_size=8, batch_norm=True, num_channels=3, pools=(1,), **common)
    assert later.config == {**first.config, "num_channels": 3, "pools": [1]}
    assert Cnn(**later.config).fc1.in_features == later.fc1.in_features == 8 * 4 * 4
