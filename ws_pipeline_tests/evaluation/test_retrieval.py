import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from ws_pipeline.evaluation.retrieval import (
    average_precision,
    evaluate_retrieval,
    expected_hits,
    expected_precision,
    hits_within,
    rank_neighbours,
    relation_masks,
)
from ws_pipeline_tests.evaluation.conftest import FAST
from ws_pipeline_tests.evaluation.population import create_population, embedding_frame


@pytest.fixture(scope="module")
def results(population):
    return evaluate_retrieval(
        population.corpus,
        population.embeddings,
        population.layers,
        population.edges,
        recipe="tiny",
        config=FAST,
    )


def value(results, target, features, metric="recall@1"):
    rows = results.filter(
        (pl.col("target") == target)
        & (pl.col("features") == features)
        & (pl.col("metric") == metric)
    )
    assert len(rows) == 1
    return rows.row(0, named=True)


def test_planted_relatives_are_found(results):
    assert value(results, "lineage", "backbone")["value"] == 1.0
    assert value(results, "lineage_in_family", "backbone")["value"] == 1.0
    # Two of three models of a lineage have a parent, and it is one of two equally near relatives.
    parent = value(results, "parent", "backbone", "recall@5")
    assert (parent["value"], parent["num_models"]) == (1.0, 40)


def test_noise_finds_relatives_as_often_as_chance(results):
    for target in ("lineage", "family", "lineage_in_family"):
        chance = value(results, target, "random")["value"]
        noise = value(results, target, "untrained")
        assert noise["low"] <= chance <= noise["high"] or abs(noise["value"] - chance) < 0.05


def test_the_backbone_beats_chance_by_a_paired_difference(results):
    assert value(results, "lineage", "backbone|random", "recall@1_difference")["low"] > 0.9


def test_recall_grows_with_k(results):
    scores = [value(results, "child", "backbone", f"recall@{k}")["value"] for k in (1, 5, 10)]
    assert scores == sorted(scores)


def test_chance_is_the_mean_over_random_orders():
    rng = np.random.default_rng(0)
    hits = [bool((rng.permutation(20)[:5] < 3).any()) for _ in range(20_000)]
    expected = expected_hits(np.array([3]), np.array([20]), 5)[0]
    assert expected == pytest.approx(np.mean(hits), abs=0.01)
    assert expected_hits(np.array([2]), np.array([3]), 10)[0] == 1.0


def test_equal_vectors_are_ranked_at_random_not_by_their_place():
    vectors = np.ones((400, 3))
    queries = np.arange(400)
    ranks = rank_neighbours(vectors, queries, np.random.default_rng(0))
    relevant = np.abs(queries[:, None] - queries[None, :]) == 1  # neighbours in the table
    gallery = ~np.eye(400, dtype=bool)
    assert hits_within(ranks, relevant, gallery, 1).mean() < 0.03


def test_edges_are_read_by_hub_id_and_by_repo_id_and_strangers_are_skipped(population):
    corpus = population.corpus.head(3)
    a, b, c = corpus["hub_id"]
    edges = pl.DataFrame(
        {
            "child": [b, c, c],
            "parent": [a, corpus["repo_id"][0], "gone/away"],
            "relation": ["f"] * 3,
        }
    )
    masks = relation_masks(corpus, edges)
    assert np.argwhere(masks["parent"]).tolist() == [[1, 0], [2, 0]]
    assert np.argwhere(masks["child"]).tolist() == [[0, 1], [0, 2]]
    assert not masks["family"].diagonal().any()


def test_without_relatives_every_number_is_null():
    lonely = create_population(num_lineages=40, models_per_lineage=1)
    results = evaluate_retrieval(
        lonely.corpus, lonely.embeddings, lonely.layers, lonely.edges, recipe="tiny", config=FAST
    )
    row = value(results, "lineage", "backbone")
    assert (row["value"], row["num_models"]) == (None, 0)
    assert value(results, "family", "backbone")["value"] is not None


def test_the_order_of_the_corpus_does_not_decide(population):
    constant = embedding_frame(population.corpus, np.ones((len(population.corpus), 4)))
    results = evaluate_retrieval(
        population.corpus,
        {"backbone": constant},
        population.layers,
        population.edges,
        recipe="tiny",
        config=FAST,
    )
    assert value(results, "lineage", "backbone")["value"] < 0.1


def test_without_embeddings_every_number_is_null_and_nothing_breaks(population):
    empty = population.embeddings["backbone"].clear()
    results = evaluate_retrieval(
        population.corpus,
        {"backbone": empty},
        population.layers,
        population.edges,
        recipe="tiny",
        config=FAST,
    )
    assert results["value"].null_count() == len(results)


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(3)
    order = rng.permutation(30)
    ranks = np.empty((1, 30), dtype=np.int64)
    ranks[0, order] = np.arange(30)
    relevant = rng.random((1, 30)) < 0.3
    expected = average_precision_score(relevant[0], -ranks[0])
    everyone = np.ones((1, 30), dtype=bool)
    assert average_precision(ranks, relevant, everyone)[0] == pytest.approx(expected)


def test_the_expected_precision_is_the_mean_over_random_orders():
    rng = np.random.default_rng(4)
    ranks = np.array([rng.permutation(12) for _ in range(20_000)])
    relevant = np.broadcast_to(np.arange(12) < 3, ranks.shape)
    drawn = average_precision(ranks, relevant, np.ones(ranks.shape, dtype=bool)).mean()
    assert expected_precision(np.array([3]), np.array([12]))[0] == pytest.approx(drawn, abs=0.01)


def test_models_of_one_data_set_are_relatives_whatever_their_family(population):
    cards = ['{"datasets": ["a"]}', '{"generating_factors": {"dataset": "a"}}', "{}", "{}"]
    corpus = population.corpus.head(4).with_columns(card=pl.Series(cards))
    mask = relation_masks(corpus, population.edges)["dataset"]
    assert mask.sum() == 2
    assert mask[0, 1]
    assert mask[1, 0]
