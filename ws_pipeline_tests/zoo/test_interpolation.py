"""Between two trained models: a barrier that alignment takes away."""

from pathlib import Path

import numpy as np
import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ZooConfig
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.interpolation import Evaluator, Interpolation, interpolate_models
from ws_pipeline.zoo.train import train_zoo
from ws_pipeline.zoo.weights import average_weights, flatten_weights, read_arrays


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    common = {
        "dataset": "digits",
        "factors": FactorGrid(values={"learning_rate": (1e-3,)}),
        "seeds": (0, 1),
    }
    mlp = GridConfig(
        name="mlp",
        architecture="mlp",
        sizes={"hidden_sizes": (96, 96)},
        num_epochs=10,
        **common,
    )
    cnn = GridConfig(
        name="cnn",
        architecture="cnn",
        sizes={"channels": (8, 16, 16), "hidden_size": 32},
        num_epochs=4,
        **common,
    )
    train_zoo(ZooConfig(name="pairs", populations=(mlp, cnn)), folder, show_progress=False)
    return folder


def list_repos(folder: Path, family: str) -> list[Path]:
    index = read_index(folder)
    names = index.filter(index["family"] == family)["name"]
    return [folder / "repos" / name for name in names]


def digits() -> LabelledDataset:
    dataset = load_dataset("digits")
    assert isinstance(dataset, LabelledDataset)
    return dataset


@pytest.mark.parametrize(("family", "kept"), [("mlp", 0.25), ("cnn", 0.8)])
def test_alignment_lowers_the_barrier_and_leaves_the_ends(
    pair_folder: Path, family: str, kept: float
) -> None:
    one, other = list_repos(pair_folder, family)
    evaluator = Evaluator(one, family, digits())
    plain, aligned = (
        interpolate_models(one, other, evaluator, align=align, num_points=5)
        for align in (False, True)
    )
    assert plain.barrier > 0.3
    assert aligned.barrier < kept * plain.barrier
    assert aligned.accuracy_drop < plain.accuracy_drop
    assert aligned.distance < 0.95 * plain.distance
    assert aligned.losses[0] == plain.losses[0]
    assert aligned.losses[-1] == pytest.approx(plain.losses[-1], rel=1e-5)
    assert aligned.accuracies[-1] == pytest.approx(plain.accuracies[-1], abs=0.003)


def test_the_ends_score_as_the_index_says(pair_folder: Path) -> None:
    index = read_index(pair_folder)
    for family in ("mlp", "cnn"):
        repos = list_repos(pair_folder, family)
        evaluator = Evaluator(repos[0], family, digits())
        for repo in repos:
            loss, accuracy = evaluator.score(read_arrays(repo))
            row = index.filter(index["name"] == repo.name).row(0, named=True)
            assert accuracy == pytest.approx(row["accuracy"], abs=0.003)
            assert loss == pytest.approx(row["loss"], abs=1e-4)


def test_a_barrier_is_measured_against_the_line_between_the_ends() -> None:
    way = Interpolation(
        shares=(0.0, 0.5, 1.0), losses=(1.0, 3.0, 2.0), accuracies=(0.9, 0.5, 0.7), distance=1.0
    )
    assert way.barrier == pytest.approx(1.5)
    assert way.accuracy_drop == pytest.approx(0.3)
    flat = Interpolation(shares=(0.0, 1.0), losses=(1.0, 2.0), accuracies=(1.0, 0.0), distance=1.0)
    assert flat.barrier == flat.accuracy_drop == 0.0


def test_averages_keep_dtypes_and_counters() -> None:
    one = {"w": np.float32([1, 2]), "n": np.int64([7])}
    other = {"w": np.float32([3, 6]), "n": np.int64([9])}
    even, odd = average_weights([one, other]), average_weights([one, other], [0.75, 0.25])
    assert even["w"].tolist() == [2, 4]
    assert odd["w"].tolist() == [1.5, 3]
    assert even["w"].dtype == np.float32
    assert even["n"].tolist() == [7]
    assert flatten_weights(even).tolist() == [2, 4]


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"model\.safetensors"):
        read_arrays(tmp_path)
