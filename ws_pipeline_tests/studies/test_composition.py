"""What is trained on what. The trainings themselves are in test_run."""

from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.composition import (
    LARGE,
    SMALL,
    composition_study,
    read_zoos,
    split_families,
)
from ws_pipeline.studies.hub_against_zoo import evaluate_embeddings, hub_against_zoo_study
from ws_pipeline.studies.study import Study, name_datasets
from ws_pipeline_tests.evaluation.population import card, create_population

ZOOS = {
    "mlp": {"digits": 70, "inverted": 18},
    "cnn": {"digits": 20, "few": 5},
    "vit": {"digits": 17},
}
HUB = {"whisper": {"": 24}, "ocr": {"": 3}}
MIXED = "16 models of 3 architectures"


def corpus_of(zoos: dict[str, dict[str, int]], hub: dict[str, dict[str, int]]) -> pl.DataFrame:
    rows = []
    for families, is_zoo in ((zoos, True), (hub, False)):
        for family, datasets in families.items():
            for data, size in datasets.items():
                text = card(0.5, factors={"dataset": data} if is_zoo else None)
                name = f"{family}-{data}"
                rows += [(f"{name}-{i}", family, "train", text) for i in range(size)]
    return pl.DataFrame(rows, schema=["hub_id", "family", "split", "card"], orient="row")


@pytest.fixture(scope="module")
def corpus() -> pl.DataFrame:
    return corpus_of(ZOOS, HUB)


@pytest.fixture(scope="module")
def study(corpus: pl.DataFrame) -> Study:
    return composition_study(corpus)


@pytest.fixture(scope="module")
def chosen(corpus: pl.DataFrame, study: Study) -> dict[str, pl.DataFrame]:
    named = name_datasets(corpus)
    return {v.name: v.population.choose(named) for v in study.variants}


def test_zoos_are_the_families_whose_cards_state_how_they_were_made(corpus: pl.DataFrame) -> None:
    assert split_families(corpus) == (("mlp", "cnn", "vit"), ("whisper", "ocr"))


def test_a_data_set_counts_where_enough_models_are_of_it(corpus: pl.DataFrame) -> None:
    zoos = read_zoos(corpus, ("mlp", "cnn", "vit"))
    assert zoos.datasets == {"mlp": ("digits", "inverted"), "cnn": ("digits",), "vit": ("digits",)}
    assert zoos.every == ("digits", "few", "inverted")
    assert zoos.num_main == {"mlp": 70, "cnn": 20, "vit": 17}


def test_sizes_are_nested_at_fixed_diversity(chosen: dict[str, pl.DataFrame]) -> None:
    for what, total in (("all zoos", 130), ("the hub", 27)):
        names = [f"{size} models of {what}" for size in (SMALL, LARGE, "all")]
        sizes = [chosen[name] for name in names]
        assert [len(each) for each in sizes] == [16, min(60, total), total]
        for small, large in pairwise(sizes):
            assert set(small["hub_id"]) <= set(large["hub_id"])
            assert set(small["family"]) == set(large["family"])


def test_one_architecture_has_one_data_set_or_several_at_the_same_size(
    chosen: dict[str, pl.DataFrame],
) -> None:
    single = [chosen[f"16 models of mlp on {name}"] for name in ("digits", "inverted")]
    both = chosen["16 models of mlp on digits and inverted"]
    assert [len(each) for each in (*single, both)] == [16, 16, 16]
    assert [set(each["dataset"]) for each in single] == [{"digits"}, {"inverted"}]
    assert dict(both["dataset"].value_counts().rows()) == {"digits": 8, "inverted": 8}
    assert {each["family"].n_unique() for each in (*single, both)} == {1}


def test_architectures_are_mixed_on_their_first_data_sets(chosen: dict[str, pl.DataFrame]) -> None:
    mixed = chosen[MIXED]
    assert sorted(mixed["family"].value_counts()["count"]) == [5, 5, 6]
    assert set(mixed["dataset"]) == {"digits"}


def test_hub_and_zoos_are_there_alone_and_together(
    corpus: pl.DataFrame, chosen: dict[str, pl.DataFrame]
) -> None:
    assert set(chosen["all models of the hub"]["family"]) == set(HUB)
    assert len(chosen["all models of hub and zoos"]) == corpus.height
    assert set(chosen["16 models of hub and zoos"]["family"]) == {*HUB, *ZOOS}


def test_more_kinds_are_held_against_as_many_times_more_models(
    study: Study, chosen: dict[str, pl.DataFrame]
) -> None:
    found = {contrast.name: contrast for contrast in study.contrasts}
    data = found["2 data sets of mlp or 60 models of one"]
    assert data.narrow == ("16 models of mlp on digits", "16 models of mlp on inverted")
    assert data.small == data.narrow[:1]
    assert data.diverse == ("16 models of mlp on digits and inverted",)
    assert data.large == ("60 models of mlp on digits",)
    assert len(chosen[data.large[0]]) == 60
    assert set(chosen[data.small[0]]["hub_id"]) < set(chosen[data.large[0]]["hub_id"])
    kinds = found["3 architectures or 60 models of one"]
    assert (kinds.narrow, kinds.small, kinds.diverse) == (data.small, data.small, (MIXED,))


def test_curves_are_against_both_axes_with_the_numbers_of_models_and_kinds(study: Study) -> None:
    curves = {curve.name: curve for curve in study.curves}
    places = {name: [level.place for level in curve.levels] for name, curve in curves.items()}
    assert places["all zoos"] == [16, 60, 130]
    assert places["the hub"] == [16, 27]  # it has no more: 60 of it are all of it
    assert places["mlp on digits"] == [16, 60]
    assert places["data sets of mlp"] == [1, 2]
    assert places["architectures, the first data set of each"] == [1, 3]
    assert {curve.axis for curve in curves.values()} == {"size", "diversity"}
    names = {variant.name for variant in study.variants}
    used = [level.variants for curve in study.curves for level in curve.levels]
    assert {name for group in used for name in group} <= names


def test_four_data_sets_stand_at_one_at_two_and_at_four() -> None:
    four = {"cnn": dict.fromkeys("abcd", 20)}
    study = composition_study(corpus_of(four, {}))
    (curve,) = (curve for curve in study.curves if curve.name == "data sets of cnn")
    assert [(level.place, len(level.variants)) for level in curve.levels] == [
        (1, 4),
        (2, 2),
        (4, 1),
    ]


def test_every_training_of_the_study_has_the_same_budget(study: Study) -> None:
    assert len({variant.recipe.digest() for variant in study.variants}) == 1
    assert {variant.seeds for variant in study.variants} == {(0, 1, 2)}


def test_a_corpus_without_zoos_is_refused() -> None:
    with pytest.raises(MissingInputError, match=r"needs zoos.*run ws-pipeline demo"):
        composition_study(corpus_of({}, HUB))


def test_hub_and_zoos_are_trained_on_equally_many_models() -> None:
    corpus = corpus_of(ZOOS, HUB)
    study = hub_against_zoo_study(corpus)
    sizes = {v.name: v.population.choose(corpus).height for v in study.variants}
    assert sizes == {"zoos": 27, "hub": 27, "hub and zoos": 27}


def test_backbones_are_compared_on_every_evaluation_with_all_controls(tmp_path: Path) -> None:
    population = create_population(num_lineages=32)
    store = Store.open(tmp_path / "store")
    store.tables.write("weights/layers/all", population.layers)
    store.tables.write("corpus/lineage", population.edges)
    backbone, fresh = population.embeddings["backbone"], population.embeddings["untrained"]
    embeddings = {"zoos": backbone, "hub": fresh, "untrained": fresh}
    config = EvaluationConfig(num_bootstrap=20)
    found = evaluate_embeddings(store, population.corpus, embeddings, seed=3, config=config)
    assert {"zoos", "hub", "untrained", "statistics"} <= set(found["features"])
    assert set(found["evaluation"]) == {"properties", "retrieval"}
    assert set(found["seed"]) == {3}
    accuracy = (pl.col("target") == "accuracy") & (pl.col("slice") == "all")
    scores = found.filter(accuracy & (pl.col("metric") == "r2"))
    values = dict(scores.select("features", "value").rows())
    assert values["zoos"] > values["hub"]  # one knows the truth, the other is noise
