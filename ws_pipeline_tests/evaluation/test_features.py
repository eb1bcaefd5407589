import numpy as np
import polars as pl
import pytest

from ws_pipeline.backbone.embedding_blocks import EMBEDDING_SIZE
from ws_pipeline.errors import RefusedError
from ws_pipeline.evaluation import features
from ws_pipeline.evaluation.statistics import (
    STATISTIC_NAMES,
    concatenated_statistics,
    family_statistics,
    pooled_statistics,
)
from ws_pipeline.evaluation.targets import read_card_truth


def test_embeddings_come_in_the_corpus_order_and_absent_ones_are_not_available(population):
    corpus = population.corpus.head(4)
    frame = pl.DataFrame(
        {
            "hub_id": [corpus["hub_id"][i] for i in (2, 0, 3)],
            "embedding": [[2.0, 2.0], [0.0, 0.5], [float("nan"), 1.0]],
        }
    )
    table = features.embedding_features("backbone", corpus, frame)
    assert table.available.tolist() == [True, False, True, False]
    assert table.values[2].tolist() == [2.0, 2.0]


def test_embeddings_of_several_sizes_are_refused(population):
    frame = (
        population.corpus.head(2)
        .select("hub_id")
        .with_columns(embedding=pl.Series([[1.0], [1.0, 2.0]]))
    )
    with pytest.raises(RefusedError, match=r"one size .* got sizes \[1, 2\]"):
        features.embedding_features("backbone", population.corpus.head(2), frame)


def test_an_empty_embedding_frame_makes_no_model_available(population):
    frame = pl.DataFrame(schema={"hub_id": pl.String, "embedding": pl.List(pl.Float32)})
    table = features.embedding_features("backbone", population.corpus, frame)
    assert not table.available.any()


def test_an_embedding_comes_whole_and_by_blocks_and_what_the_backbone_leaves_alone_comes_once():
    corpus = pl.DataFrame({"hub_id": ["a", "b"]})
    vectors = np.random.default_rng(0).normal(size=(2, EMBEDDING_SIZE)).astype(np.float32)
    frames = {
        name: corpus.with_columns(embedding=pl.Series(vectors.tolist(), dtype=pl.List(pl.Float32)))
        for name in ("backbone", "untrained")
    }
    tables = {table.name: table for table in features.embedding_tables(corpus, frames)}
    blocks = ["spectra", "end_sketches", "untrained_latents", "backbone_latents"]
    assert list(tables) == [*blocks, "untrained", "backbone"]
    parts = [tables[name].values for name in ("backbone_latents", "spectra", "end_sketches")]
    np.testing.assert_array_equal(np.hstack(parts), vectors)
    assert all(table.is_scaled for table in tables.values())
    assert [name for name in tables if not features.is_control(name)] == ["backbone"]


def test_vectors_of_another_making_have_no_blocks():
    corpus = pl.DataFrame({"hub_id": ["a"]})
    frame = corpus.with_columns(embedding=pl.Series([[1.0, 2.0]]))
    (table,) = features.embedding_tables(corpus, {"backbone": frame})
    assert table.name == "backbone"


def test_one_hot_keeps_the_most_frequent_values_and_leaves_nulls_empty():
    values = pl.Series("v", [f"c{i}" for i in range(100)] + ["common"] * 3 + [None])
    columns = features.one_hot(values)
    assert columns.shape == (104, features.MAX_CATEGORIES)
    assert columns[100:103, 0].tolist() == [1.0, 1.0, 1.0]
    assert columns[103].sum() == 0


def test_hyper_parameters_without_epoch_lose_the_epoch_only(population):
    factors = read_card_truth(population.corpus, ("accuracy",)).factors
    full = features.hyper_parameter_features(population.corpus, factors)
    without = features.hyper_parameter_features(population.corpus, factors, with_epoch=False)
    assert full.values.shape[1] - without.values.shape[1] == 2  # the number and its absence
    assert np.isfinite(full.values).all()


def test_pooled_statistics_have_one_size_for_all_architectures(population):
    table = pooled_statistics(population.corpus, population.layers)
    assert table.available.all()
    # 6 summaries over layers and the means of two roles
    assert table.values.shape == (len(population.corpus), 8 * len(STATISTIC_NAMES))


def test_pooled_statistics_take_means_and_ends_over_tokenised_layers_only(population):
    table = pooled_statistics(population.corpus.head(1), population.layers)
    layers = [la for la in population.layers["layers"][0] if la["treatment"] == "tokenised"]
    stds = [layer["w_std"] for layer in layers]
    column = STATISTIC_NAMES.index("w_std")
    width = len(STATISTIC_NAMES)
    assert table.values[0, column] == pytest.approx(np.mean(stds))
    assert table.values[0, 4 * width + column] == pytest.approx(stds[0])
    assert table.values[0, 5 * width + column] == pytest.approx(stds[-1])


def test_statistics_are_concatenated_where_plans_are_equal_and_pooled_where_not(population):
    cnn = population.corpus.filter(pl.col("family") == "cnn")
    table = family_statistics(cnn, population.layers)
    assert table.values.shape == (len(cnn), 3 * len(STATISTIC_NAMES))
    assert table.values[0, 0] == pytest.approx(
        population.layers.filter(pl.col("hub_id") == cnn["hub_id"][0])["layers"][0][0]["w_mean"]
    )
    assert concatenated_statistics(population.corpus, population.layers) is None


def test_a_model_without_layers_is_not_available_and_spoils_nothing(population):
    layers = population.layers.filter(pl.col("hub_id") != population.corpus["hub_id"][0])
    table = pooled_statistics(population.corpus, layers)
    assert not table.available[0]
    assert table.available[1:].all()
