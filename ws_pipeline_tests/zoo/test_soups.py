"""Soups average what their recipe says, and taste as they are scored."""

from pathlib import Path

import numpy as np
import pytest

from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, ZooConfig
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.interpolation import Evaluator
from ws_pipeline.zoo.soups import average_epochs, make_greedy_soup, make_uniform_soup
from ws_pipeline.zoo.train import train_zoo
from ws_pipeline.zoo.weights import Weights, read_arrays

TARGET = 10.0


def closeness(weights: Weights) -> float:
    return -abs(float(weights["w"][0]) - TARGET)


def model(value: float) -> Weights:
    return {"w": np.array([value])}


def test_a_greedy_soup_takes_what_does_not_hurt() -> None:
    models = [model(2.0), model(8.0), model(13.0), model(9.5)]
    soup = make_greedy_soup(models, closeness)
    # 9.5 alone, then with 8 worse, with 13 worse (11.25), with 2 worse.
    assert soup.members == (3,)
    soup = make_greedy_soup([*models, model(10.5)], closeness)
    assert soup.members[:2] == (3, 4)
    assert soup.score == closeness(soup.weights) == 0.0
    assert soup.score >= max(closeness(each) for each in models)


def test_a_uniform_soup_takes_all() -> None:
    soup = make_uniform_soup([model(2.0), model(8.0)], closeness)
    assert soup.members == (0, 1)
    assert soup.weights["w"].tolist() == [5.0]
    assert soup.score == -5.0


def test_the_last_epochs_are_averaged() -> None:
    epochs = [model(value) for value in (100.0, 2.0, 4.0)]
    assert average_epochs(epochs, last=2)["w"].tolist() == [3.0]
    assert average_epochs(epochs, last=9)["w"].tolist() == pytest.approx([106.0 / 3])


def test_a_soup_of_finetunes_of_one_parent_works_and_of_strangers_does_not(tmp_path: Path) -> None:
    common = {"architecture": "mlp", "num_epochs": 6}
    grids = (
        GridConfig(
            name="parents",
            dataset="digits",
            sizes={"hidden_sizes": (64, 64)},
            factors=FactorGrid(values={"learning_rate": (3e-3,)}),
            seeds=(0, 1, 2),
            **common,
        ),
        GridConfig(
            name="children",
            dataset="digits-shifted",
            parent=ParentConfig(population="parents", num_parents=1),
            factors=FactorGrid(values={"learning_rate": (5e-4, 1e-3, 2e-3)}),
            **common,
        ),
    )
    train_zoo(ZooConfig(name="soup", populations=grids), tmp_path, show_progress=False)
    index = read_index(tmp_path)
    accuracies = {}
    for population, name in (("parents", "digits"), ("children", "digits-shifted")):
        dataset = load_dataset(name)
        assert isinstance(dataset, LabelledDataset)
        repos = [tmp_path / "repos" / n for n in index.filter(population=population)["name"]]
        models = [read_arrays(repo) for repo in repos]
        val = Evaluator(repos[0], "mlp", dataset, split="val")
        test = Evaluator(repos[0], "mlp", dataset, split="test")
        uniform = make_uniform_soup(models, lambda weights, val=val: val.score(weights)[1])
        greedy = make_greedy_soup(models, lambda weights, val=val: val.score(weights)[1])
        singles = [test.score(each)[1] for each in models]
        accuracies[population] = (test.score(uniform.weights)[1], np.mean(singles))
        assert greedy.score >= max(val.score(each)[1] for each in models)
    soup, single = accuracies["children"]
    assert soup > single - 0.01
    soup, single = accuracies["parents"]
    assert soup < single - 0.1
