"""What is trained on what. The trainings themselves are in test_run."""

from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.composition import BASELINE, composition_study, split_families
from ws_pipeline.studies.hub_against_zoo import evaluate_embeddings, hub_against_zoo_study
from ws_pipeline_tests.evaluation.population import card, create_population

ZOOS = {"mlp": 30, "cnn": 25, "vit": 22}
HUB = {"whisper": 24, "ocr": 3}


def corpus_of(zoos: dict[str, int], hub: dict[str, int]) -> pl.DataFrame:
    rows = []
    for families, factors in ((zoos, {"seed": 1}), (hub, None)):
        for family, size in families.items():
            text = card(0.5, factors=factors)
            rows += [(f"{family}-{i}", family, "train", text) for i in range(size)]
    return pl.DataFrame(rows, schema=["hub_id", "family", "split", "card"], orient="row")


def test_zoos_are_the_families_whose_cards_state_how_they_were_made() -> None:
    assert split_families(corpus_of(ZOOS, HUB)) == (("mlp", "cnn", "vit"), ("whisper", "ocr"))


def test_sizes_are_nested_at_fixed_diversity_and_diversity_grows_at_fixed_size() -> None:
    corpus = corpus_of(ZOOS, HUB)
    study = composition_study(corpus)
    chosen = {v.name: v.population.choose(corpus) for v in study.variants}
    sizes = [chosen[name] for name in (BASELINE, "60 models of all zoos", "all models of all zoos")]
    assert [len(each) for each in sizes] == [20, 60, 77]
    for small, large in pairwise(sizes):
        assert set(small["hub_id"]) < set(large["hub_id"])
        assert set(small["family"]) == set(large["family"]) == set(ZOOS)
    fixed = [v for v in study.variants if v.factors["axis"] == "diversity"]
    assert {len(chosen[v.name]) for v in fixed} == {20}
    assert {v.factors["families"] for v in fixed} == {"1", "2"}
    assert set(chosen["all models of the hub"]["family"]) == set(HUB)
    assert len(chosen["hub and zoos"]) == corpus.height


def test_every_training_of_the_study_has_the_same_budget() -> None:
    study = composition_study(corpus_of(ZOOS, HUB))
    assert len({variant.recipe.digest() for variant in study.variants}) == 1


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
