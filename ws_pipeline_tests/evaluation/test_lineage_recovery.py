from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ws_pipeline.evaluation.features import FeatureTable
from ws_pipeline.evaluation.lineage_recovery import choose_threshold, evaluate_lineage, true_edges
from ws_pipeline.evaluation.weight_distances import measure_distances
from ws_pipeline.weights.layer_matrix import LayerMatrix
from ws_pipeline_tests.evaluation.conftest import FAST


def layers(seed: int, *, near: int | None = None, head: int = 3) -> list[LayerMatrix]:
    rng = np.random.default_rng(seed)
    body = np.random.default_rng(near).normal(size=(8, 9)) if near is not None else 0.0
    own = rng.normal(size=(8, 9))
    values = own if near is None else 1.5 * body + 0.05 * own
    return [
        LayerMatrix(name="body", role="linear", values=values),
        LayerMatrix(name="head", role="linear", values=rng.normal(size=(head, 8))),
    ]


@pytest.fixture(scope="module")
def tree():
    """Twelve lineages of a parent and two fine-tunes; the fine-tunes' heads have another size."""
    rows, models, edges = [], [], []
    for lineage in range(12):
        for step in range(3):
            name = f"{lineage}-{step}"
            model = (
                layers(100 * lineage)
                if not step
                else layers(100 * lineage + step, near=100 * lineage, head=5)
            )
            moments = [{"mean": m.values.mean(), "std": m.values.std()} for m in model]
            rows.append(
                {
                    "hub_id": name,
                    "repo_id": f"o/{name}",
                    "family": "mlp",
                    "split": ("train", "val", "test")[lineage % 3],
                    "lineage_root": f"{lineage}-0",
                    "num_values": 100,
                    "shard_sha256": name,
                    "layers": moments,
                }
            )
            models.append(model)
            if step:
                edges.append((name, f"o/{lineage}-0", ""))
    found = dict(zip([row["hub_id"] for row in rows], models, strict=True))
    frame = pl.DataFrame(edges, schema=["child", "parent", "contradiction"], orient="row")
    return pl.DataFrame(rows), found, frame


def scores(results: pl.DataFrame) -> dict[tuple[str, str], float]:
    rows = results.filter(~pl.col("metric").str.ends_with("_difference"))
    return {(m, f): v for m, f, v in rows.select("metric", "features", "value").iter_rows()}


def test_planted_edges_are_found_by_weights_and_not_by_noise(tree):
    corpus, models, edges = tree
    noise = FeatureTable(
        name="untrained",
        values=np.random.default_rng(0).normal(size=(len(corpus), 4)),
        available=np.ones(len(corpus), dtype=bool),
    )
    found = scores(
        evaluate_lineage(
            corpus,
            (noise,),
            edges,
            lambda row: iter(models[row["shard_sha256"]]),
            recipe="t",
            config=replace(FAST, min_lineages=3),
        )
    )
    # Siblings lie as close as parents do, so not every nearest model is an edge.
    assert found["edge_f1", "l2"] > 0.6
    assert found["edge_f1", "cosine"] > 0.6
    assert found["edge_f1", "untrained"] < 0.4
    # Every planted child is its parent times 1.5.
    assert found["direction", "weight_norm"] > 0.8


def test_contradicted_claims_and_strangers_are_no_truth(tree):
    corpus, _, edges = tree
    assert len(true_edges(corpus, edges)) == 24
    assert len(true_edges(corpus, edges.with_columns(contradiction=pl.lit("circle")))) == 0
    assert len(true_edges(corpus, edges.with_columns(parent=pl.lit("nobody")))) == 0


def test_distances_are_those_of_the_shared_layers_and_singular_values_see_no_order():
    one, other = layers(1), layers(2, near=1, head=5)
    rng = np.random.default_rng(5)
    moved = [replace(m, values=m.values[rng.permutation(len(m.values))]) for m in one]
    found = measure_distances([one, other, moved])
    a, b = one[0].values, other[0].values
    expected = ((a - b) ** 2).sum() / ((a**2).sum() + (b**2).sum())
    assert found["l2"][0, 1] == pytest.approx(expected)
    assert found["cosine"][0, 1] == pytest.approx(
        1 - (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    )
    assert found["l2"][0, 2] > 0.1
    assert found["singular_values"][0, 2] == pytest.approx(0.0, abs=1e-12)
    assert np.isinf(found["l2"][0, 0])


def test_models_that_share_too_little_are_not_compared():
    big = LayerMatrix(name="own", role="linear", values=np.ones((50, 50)))
    other = replace(big, name="another")
    head = LayerMatrix(name="head", role="linear", values=np.ones((2, 2)))
    assert np.isinf(measure_distances([[big, head], [other, head]])["l2"]).all()


def test_the_threshold_is_the_one_of_best_f1():
    index = np.array([1, 0, 3, 2, 0])
    distance = np.array([0.1, 0.1, 0.2, 0.2, 0.9])
    truth = np.array([[1, 0], [3, 2]])
    assert choose_threshold(index, distance, truth, np.ones(5, dtype=bool)) == 0.2
