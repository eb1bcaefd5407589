import polars as pl
import pytest

from ws_pipeline.evaluation.reconstruction import summarize_reconstruction
from ws_pipeline_tests.evaluation.conftest import FAST
from ws_pipeline_tests.evaluation.population import layer_errors


@pytest.fixture(scope="module")
def results(population):
    errors = {
        "backbone": layer_errors(population.corpus, 0.4),
        "untrained": layer_errors(population.corpus, 1.1, seed=1),
    }
    return summarize_reconstruction(population.corpus, errors, recipe="tiny", config=FAST)


def value(results, features, slice_name="all", metric="relative_error"):
    rows = results.filter(
        (pl.col("features") == features)
        & (pl.col("slice") == slice_name)
        & (pl.col("metric") == metric)
    )
    assert len(rows) == 1
    return rows.row(0, named=True)


def test_planted_errors_come_back_overall_by_role_and_by_family(results):
    assert value(results, "backbone")["value"] == pytest.approx(0.4, rel=0.05)
    assert value(results, "backbone", "role:conv")["value"] == pytest.approx(0.6, rel=0.05)
    assert value(results, "backbone", "family:cnn")["num_models"] == 15


def test_predicting_the_mean_scores_one(results):
    row = value(results, "mean")
    assert (row["value"], row["low"], row["high"]) == (1.0, 1.0, 1.0)


def test_the_difference_to_the_untrained_backbone_is_paired(results):
    row = value(results, "backbone|untrained", metric="relative_error_difference")
    assert row["high"] < -0.6


def test_only_held_out_models_count(population, results):
    held_out = population.corpus.filter(pl.col("split") == "test")
    assert value(results, "backbone")["num_models"] == len(held_out)


def test_layers_without_a_finite_error_are_left_out_and_counted(population):
    errors = layer_errors(population.corpus, 0.4).with_columns(
        relative_error=pl.when(pl.col("role") == "conv")
        .then(pl.lit(float("inf")))
        .otherwise("relative_error")
    )
    results = summarize_reconstruction(
        population.corpus, {"backbone": errors}, recipe="tiny", config=FAST
    )
    row = value(results, "backbone", metric="undefined_layers")
    assert (row["value"], row["num_models"]) == (60.0, 60)
    assert value(results, "backbone")["value"] < 0.4
    assert results.filter(pl.col("slice") == "role:conv").is_empty()


def test_no_held_out_model_is_no_error(population):
    corpus = population.corpus.with_columns(split=pl.lit("train"))
    results = summarize_reconstruction(
        corpus, {"backbone": layer_errors(corpus, 0.4)}, recipe="tiny", config=FAST
    )
    assert value(results, "backbone")["value"] is None
