from dataclasses import replace

import polars as pl
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import r2_score

from ws_pipeline.evaluation.properties import evaluate_properties
from ws_pipeline_tests.evaluation.conftest import FAST
from ws_pipeline_tests.evaluation.population import create_population


def score(results: pl.DataFrame, target: str, features: str, metric="r2", slice_name="all"):
    rows = results.filter(
        (pl.col("target") == target)
        & (pl.col("features") == features)
        & (pl.col("metric") == metric)
        & (pl.col("slice") == slice_name)
    )
    assert len(rows) == 1
    return rows.row(0, named=True)


def test_a_target_linear_in_the_embedding_is_recovered(properties):
    row = score(properties.results, "accuracy", "backbone")
    assert row["value"] > 0.99
    assert row["low"] <= row["value"] <= row["high"]
    assert row["num_models"] == 60


def test_controls_score_what_they_must(properties):
    results = properties.results
    for name in ("mean", "family", "untrained"):
        assert score(results, "accuracy", name)["value"] < 0.1
    assert 0.2 < score(results, "accuracy", "statistics")["value"] < 0.9
    assert score(results, "generalization_gap", "hyper_parameters")["value"] > 0.95
    assert score(results, "generalization_gap", "backbone")["value"] < 0.2


def test_differences_are_paired_and_exclude_zero_where_the_truth_does(properties):
    won = score(properties.results, "accuracy", "backbone|statistics", "r2_difference")
    lost = score(
        properties.results, "generalization_gap", "backbone|hyper_parameters", "r2_difference"
    )
    assert won["low"] > 0
    assert lost["high"] < 0


def test_scores_are_scikit_learns_and_scipys_of_the_stored_predictions(properties):
    part = properties.predictions.filter(
        (pl.col("target") == "accuracy")
        & (pl.col("features") == "statistics")
        & (pl.col("slice") == "all")
    )
    r2 = score(properties.results, "accuracy", "statistics")["value"]
    tau = score(properties.results, "accuracy", "statistics", "kendall_tau")["value"]
    assert r2 == pytest.approx(r2_score(part["truth"], part["prediction"]))
    assert tau == pytest.approx(kendalltau(part["truth"], part["prediction"]).statistic)


def test_the_mean_has_no_rank_and_says_so(properties):
    assert score(properties.results, "accuracy", "mean", "kendall_tau")["value"] is None


def test_families_are_scored_by_the_global_probe_and_by_their_own(properties):
    for prefix in ("family:", "family_fit:"):
        row = score(properties.results, "accuracy", "backbone", slice_name=f"{prefix}cnn")
        assert row["num_models"] == 15
        assert row["value"] > 0.9


def test_the_same_input_gives_the_same_table(population, properties):
    again = evaluate_properties(
        population.corpus.clone(),
        population.embeddings,
        population.layers,
        recipe="tiny",
        config=FAST,
    )
    assert again.results.equals(properties.results)


def test_too_few_test_models_are_reported_as_null_with_their_number(population):
    config = replace(FAST, num_bootstrap=50, min_test_models=61)
    found = evaluate_properties(
        population.corpus, population.embeddings, population.layers, recipe="tiny", config=config
    )
    row = score(found.results, "accuracy", "backbone")
    assert (row["value"], row["low"], row["num_models"]) == (None, None, 60)


def test_too_few_lineages_give_a_value_without_an_interval(population):
    config = replace(FAST, num_bootstrap=50, min_lineages=21)
    found = evaluate_properties(
        population.corpus, population.embeddings, population.layers, recipe="tiny", config=config
    )
    row = score(found.results, "accuracy", "backbone")
    assert row["value"] > 0.99
    assert row["low"] is None


def test_models_without_target_or_embedding_are_left_out_and_counted(population):
    corpus = population.corpus.with_columns(
        card=pl.when(pl.col("hub_id") == pl.col("hub_id").first())
        .then(pl.lit("{}"))
        .otherwise("card")
    )
    embeddings = population.embeddings | {"backbone": population.embeddings["backbone"].slice(2)}
    found = evaluate_properties(corpus, embeddings, population.layers, recipe="tiny", config=FAST)
    assert ("accuracy", "metric_not_reported", 1) in found.missing.rows()
    assert ("(backbone)", "no_embedding", 2) in found.missing.rows()
    probes = found.probes.filter((pl.col("slice") == "all") & (pl.col("target") == "accuracy"))
    assert probes["num_train"].unique().to_list() == [118]


def test_a_corpus_without_test_models_or_cards_is_all_nulls_not_an_error():
    small = create_population(num_lineages=4)
    corpus = small.corpus.with_columns(split=pl.lit("train"), card=pl.lit(None, dtype=pl.String))
    found = evaluate_properties(corpus, small.embeddings, small.layers, recipe="tiny", config=FAST)
    assert found.results["value"].null_count() == len(found.results)
    assert found.predictions.is_empty()


def test_r2_intervals_cover_the_score_on_a_large_population():
    target = "accuracy"
    config = replace(FAST, targets=(target,), num_bootstrap=150)
    arguments = {"noise": 0.3, "statistics_share": 0.5, "models_per_lineage": 2}
    large = create_population(num_lineages=480, seed=99, **arguments)
    found = evaluate_properties(large.corpus, {}, large.layers, recipe="r", config=config)
    truth = score(found.results, target, "statistics")["value"]
    covered = 0
    for seed in range(8):
        # The same lineages to train on (seed 99's first), other models to test on.
        corpus = large.corpus.filter(
            (pl.col("split") != "test") | (pl.col("hub_id").hash(seed=seed) % 3 == 0)
        )
        part = evaluate_properties(corpus, {}, large.layers, recipe="r", config=config)
        row = score(part.results, target, "statistics")
        covered += row["low"] <= truth <= row["high"]
    assert covered >= 6


def with_layers(population) -> dict[str, pl.DataFrame]:
    frame = population.embeddings["backbone"]
    vectors = [[{"embedding": v}, {"embedding": v}] for v in frame["embedding"].to_list()]
    return {"backbone": frame.with_columns(layers=pl.Series(vectors))}


def test_trees_and_attention_read_what_ridge_reads():
    population = create_population(num_lineages=64, models_per_lineage=2)
    config = replace(
        FAST, targets=("accuracy",), probes=("ridge", "boosted", "attention"), num_bootstrap=50
    )
    found = evaluate_properties(
        population.corpus, with_layers(population), population.layers, recipe="t", config=config
    ).results
    assert score(found, "accuracy", "backbone@attention")["value"] > 0.8
    assert score(found, "accuracy", "backbone@boosted")["value"] > 0.6
    assert "backbone@boosted|statistics@boosted" in found["features"]


def test_groups_are_held_out_and_no_control_holds_its_target(population):
    config = replace(
        FAST,
        targets=("accuracy", "epoch", "factor:learning_rate"),
        held_out=("family", "optimizer"),
        num_bootstrap=50,
    )
    found = evaluate_properties(
        population.corpus, population.embeddings, population.layers, recipe="t", config=config
    ).results
    for name in ("family", "optimizer"):
        assert score(found, "accuracy", "backbone", slice_name=f"held_out:{name}")["value"] > 0.98
    # The family's name says nothing of a family that was never seen.
    assert score(found, "accuracy", "family", slice_name="held_out:family")["value"] < 0.05
    assert score(found, "accuracy", "backbone", slice_name="good")["value"] > 0.9
    assert found.filter(target="epoch", features="hyper_parameters").is_empty()
    assert found.filter(target="factor:learning_rate", features="hyper_parameters").is_empty()
    assert not found.filter(target="epoch", features="hyper_parameters_no_epoch").is_empty()
