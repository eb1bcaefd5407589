"""From the cells of a study to its numbers, on tables whose truth is known."""

import json

import numpy as np
import polars as pl
import pytest

from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.studies.bench import CellTables
from ws_pipeline.studies.study import Contrast, Curve, Level, Population, Study, Variant
from ws_pipeline.studies.summary import summarize_study
from ws_pipeline_tests.studies.small_study import quick_recipe

KINDS = (("mlp", "digits"), ("mlp", "inverted"), ("cnn", "digits"), ("hub", ""))
PER_KIND = 6
CONFIG = EvaluationConfig(num_bootstrap=50)


def corpus_of_kinds() -> pl.DataFrame:
    rows = []
    for family, dataset in KINDS:
        card = {"generating_factors": {"dataset": dataset}} if dataset else {}
        for index in range(PER_KIND):
            name = f"{family}-{dataset}-{index}"
            rows.append((name, family, "test", name, json.dumps(card)))
    columns = ["hub_id", "family", "split", "lineage_root", "card"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def cell(errors: dict[str, float], kept: dict[str, float]) -> CellTables:
    """One whose errors and accuracies depend on family and data set alone."""
    corpus = corpus_of_kinds()
    of_kind = [name.rpartition("-")[0] for name in corpus["hub_id"]]
    zoo = corpus.filter(pl.col("family") != "hub")
    return CellTables(
        record=pl.DataFrame(),
        errors=pl.DataFrame(
            {
                "hub_id": corpus["hub_id"],
                "layer": ["fc"] * len(corpus),
                "relative_error": [errors[kind] for kind in of_kind],
            }
        ),
        embeddings=pl.DataFrame({"hub_id": corpus["hub_id"], "embedding": [[0.0]] * len(corpus)}),
        generated=pl.DataFrame(
            {
                "family": zoo["family"],
                "dataset": "the cell's own idea",
                "hub_id": zoo["hub_id"],
                "draw": 0,
                "accuracy": [0.8 * kept[kind] for kind in of_kind[: len(zoo)]],
                "anchor_accuracy": 0.8,
            },
            schema_overrides={"draw": pl.Int64},
        ),
    )


def make_study() -> Study:
    def variant(name: str, families: tuple[str, ...], datasets: tuple[str, ...]) -> Variant:
        population = Population(families=families, datasets=datasets)
        return Variant(name=name, recipe=quick_recipe(), factors={}, population=population)

    return Study(
        name="kinds",
        question="?",
        variants=(
            variant("narrow", ("mlp",), ("digits",)),
            variant("wide", ("mlp", "cnn"), ("digits", "inverted")),
        ),
        baseline="narrow",
        groups={"zoos": frozenset({"mlp", "cnn"}), "hub": frozenset({"hub"})},
        curves=(
            Curve(
                name="kinds",
                axis="diversity",
                levels=(
                    Level(place=1, variants=("narrow",)),
                    Level(place=3, variants=("wide",)),
                ),
            ),
        ),
        contrasts=(
            Contrast(
                name="more",
                narrow=("narrow",),
                diverse=("wide",),
                small=("narrow",),
                large=("narrow",),
            ),
        ),
    )


@pytest.fixture(scope="module")
def results() -> pl.DataFrame:
    narrow = cell(
        {"mlp-digits": 0.1, "mlp-inverted": 0.3, "cnn-digits": 0.5, "hub-": 0.9},
        {"mlp-digits": 0.9, "mlp-inverted": 0.6, "cnn-digits": 0.3},
    )
    wide = cell(
        dict.fromkeys(("mlp-digits", "mlp-inverted", "cnn-digits", "hub-"), 0.2),
        dict.fromkeys(("mlp-digits", "mlp-inverted", "cnn-digits"), 0.9),
    )
    cells = {"narrow": [narrow], "wide": [wide]}
    return summarize_study(make_study(), corpus_of_kinds(), cells, config=CONFIG)


def values(results: pl.DataFrame, features: str, metric: str) -> dict[str, float]:
    rows = results.filter((pl.col("features") == features) & (pl.col("metric") == metric))
    return dict(rows.select("slice", "value").rows())


def test_errors_are_within_what_was_trained_on_beside_it_and_on_other_data(
    results: pl.DataFrame,
) -> None:
    narrow = values(results, "narrow", "relative_error")
    assert narrow["in distribution"] == pytest.approx(0.1)
    assert narrow["other data sets"] == pytest.approx(0.3)
    assert narrow["out of distribution"] == pytest.approx(0.5)
    assert narrow["zoos"] == pytest.approx(0.3)
    assert narrow["hub"] == pytest.approx(0.9)
    wide = values(results, "wide", "relative_error")
    assert "other data sets" not in wide  # it was trained on all of those
    assert wide["out of distribution"] == pytest.approx(0.2)


def test_generated_models_are_scored_by_what_they_keep_of_their_anchors(
    results: pl.DataFrame,
) -> None:
    narrow = values(results, "narrow", "accuracy_kept")
    assert narrow["in distribution"] == pytest.approx(0.9)
    assert narrow["other data sets"] == pytest.approx(0.6)
    assert narrow["out of distribution"] == pytest.approx(np.mean([0.6, 0.3]))
    assert narrow["all"] == pytest.approx(0.6)
    assert "hub" not in narrow  # nothing is generated there
    assert values(results, "wide", "accuracy_kept")["all"] == pytest.approx(0.9)


def test_curves_and_contrasts_stand_beside_the_variants(results: pl.DataFrame) -> None:
    first = values(results, "diversity: kinds: 1", "relative_error")
    assert first["zoos"] == pytest.approx(0.3)
    gains = values(results, "more, diversity", "relative_error_gain")
    assert gains["zoos"] == pytest.approx(np.log(0.3 / 0.2))
    assert gains["hub"] == pytest.approx(np.log(0.9 / 0.2))
    assert not {"in distribution", "out of distribution", "other data sets"} & gains.keys()
    pairs = values(results, "more, diversity|more, size", "accuracy_kept_gain_difference")
    assert pairs["all"] == pytest.approx(0.3)


def test_slices_of_a_variants_own_are_not_compared(results: pl.DataFrame) -> None:
    compared = values(results, "wide|narrow", "relative_error_ratio")
    assert compared["hub"] == pytest.approx(0.2 / 0.9)
    assert set(compared) == {"all", "zoos", "hub"}
