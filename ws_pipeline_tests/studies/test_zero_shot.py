"""Weights generated for held-out models of a trained zoo."""

from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.studies import zero_shot
from ws_pipeline.studies.zero_shot import GENERATED_SCHEMA, ZeroShotCase, generate, read_cases
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ZooConfig
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.train import train_zoo
from ws_pipeline_tests.generation.conftest import make_backbone


def population(name: str, dataset: str, num_models: int, learning_rate: float = 1e-2) -> GridConfig:
    return GridConfig(
        name=name,
        architecture="mlp",
        dataset=dataset,
        sizes={"hidden_sizes": (16,)},
        factors=FactorGrid(values={"learning_rate": (learning_rate,)}),
        seeds=tuple(range(num_models)),
        num_epochs=4,
    )


@pytest.fixture(scope="module")
def zoos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoos")
    config = ZooConfig(
        name="mlps",
        populations=(
            population("plain", "digits", 4),
            population("plain-few", "digits", 3, learning_rate=3e-2),
            population("inverted", "digits-inverted", 3),
            population("too-few", "digits-noisy", 2),
        ),
    )
    train_zoo(config, folder / "mlps", show_progress=False)
    return folder


def corpus_of(zoos: Path) -> pl.DataFrame:
    names = read_index(zoos / "mlps").sort("name")["name"]
    return pl.DataFrame({"hub_id": [f"id of {name}" for name in names], "repo_id": "lab/" + names})


@pytest.fixture(scope="module")
def cases(zoos: Path) -> list[ZeroShotCase]:
    return read_cases(zoos, corpus_of(zoos))


def test_each_data_set_has_its_largest_population_if_that_suffices(
    cases: list[ZeroShotCase],
) -> None:
    assert [(case.family, case.dataset, len(case.anchors)) for case in cases] == [
        ("mlp", "digits", 4),
        ("mlp", "digits-inverted", 3),
    ]
    for case in cases:
        names = [hub_id.removeprefix("id of ") for hub_id in case.hub_ids]
        assert names == list(case.population.names)
        assert min(case.anchor_accuracies) > 0.5  # they were trained


def test_anchors_are_held_out_models_only(zoos: Path) -> None:
    held_out = corpus_of(zoos)
    dropped = read_cases(zoos, held_out)[0].hub_ids[0]
    (first, _) = read_cases(zoos, held_out.filter(pl.col("hub_id") != dropped))
    assert dropped not in first.hub_ids
    assert len(first.hub_ids) == 3


def test_a_backbone_that_loses_nothing_keeps_the_anchors_accuracy_and_a_narrow_one_does_not(
    cases: list[ZeroShotCase],
) -> None:
    exact = generate(make_backbone(), cases)
    assert exact.schema == GENERATED_SCHEMA
    assert exact.height == zero_shot.DRAWS_PER_ANCHOR * 7
    assert set(exact["hub_id"]) == {hub_id for case in cases for hub_id in case.hub_ids}
    narrow = generate(make_backbone(2), cases)
    known = exact["anchor_accuracy"].mean()
    assert exact["accuracy"].mean() > 0.8 * known
    assert narrow["accuracy"].mean() < 0.5 * known


def test_the_same_backbone_draws_the_same_models(cases: list[ZeroShotCase]) -> None:
    assert generate(make_backbone(), cases).equals(generate(make_backbone(), cases))


def test_a_home_without_zoos_has_no_case(tmp_path: Path, zoos: Path) -> None:
    assert read_cases(tmp_path / "zoos", corpus_of(zoos)) == []
    assert generate(make_backbone(), []).is_empty()


def test_another_anchor_is_another_case(cases: list[ZeroShotCase]) -> None:
    assert len({case.digest for case in cases}) == len(cases)
