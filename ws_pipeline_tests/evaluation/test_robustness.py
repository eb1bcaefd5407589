from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ws_pipeline.evaluation.alterations import ALTERATIONS, LORA_RANK, LORA_SHARE, alter_layers
from ws_pipeline.evaluation.features import FeatureTable
from ws_pipeline.evaluation.model_weights import MatrixValues
from ws_pipeline.evaluation.robustness import AlteredCopies, evaluate_robustness
from ws_pipeline.tokens.layer_matrices import read_matrices
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.weights.layer_matrix import LayerMatrix
from ws_pipeline_tests.evaluation.conftest import FAST

LAYER = LayerMatrix(name="a", role="linear", values=np.random.default_rng(0).normal(size=(12, 20)))


def alter(name: str, layer: LayerMatrix = LAYER) -> np.ndarray:
    return alter_layers([layer], name, np.random.default_rng(1))[0].values


@pytest.mark.parametrize(("name", "most"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_roundings_err_by_half_a_unit_at_most(name, most):
    error = np.abs(alter(name) - LAYER.values) / np.abs(LAYER.values)
    assert 0 < error.max() <= most


def test_int8_leaves_255_levels():
    assert len(np.unique(np.round(alter("int8") / np.abs(LAYER.values).max() * 127, 6))) <= 255


def test_a_merged_adapter_has_its_rank_and_norm():
    change = alter("lora_merge") - LAYER.values
    assert np.linalg.matrix_rank(change) == LORA_RANK
    assert np.linalg.norm(change) / np.linalg.norm(LAYER.values) == pytest.approx(LORA_SHARE)
    thin = replace(LAYER, values=np.ones((LORA_RANK, 20)))
    np.testing.assert_array_equal(alter("lora_merge", thin), thin.values)


def test_zeros_stay_finite():
    for name in ALTERATIONS:
        assert np.isfinite(alter(name, replace(LAYER, values=np.zeros((6, 6))))).all()


def test_matrices_come_back_from_the_values_they_are_stored_as():
    record = TokenLayer(
        name="a", role="linear", block=-1, depth=0.0, dtype="F32", offset=0, rows=12, cols=20,
        scale_exponent=0, mean=0.0, std=1.0,
    )  # fmt: skip
    (found,) = read_matrices(MatrixValues([LAYER]), [record])
    np.testing.assert_array_equal(found.values, LAYER.values.astype(np.float32))


def test_drift_is_zero_untouched_and_one_at_the_nearest_stranger():
    values = np.random.default_rng(2).normal(size=(40, 6))
    corpus = pl.DataFrame(
        {
            "family": ["mlp"] * 40,
            "lineage_root": [str(row // 2) for row in range(40)],
            "hub_id": [str(row) for row in range(40)],
        }
    )
    parents = np.zeros((40, 40), dtype=bool)
    parents[np.arange(1, 40, 2), np.arange(0, 40, 2)] = True
    values[1::2] = values[::2] + 0.01
    table = FeatureTable(name="backbone", values=values, available=np.ones(40, dtype=bool))
    rows = np.arange(1, 40, 2)
    copies = [
        AlteredCopies(
            name=name,
            originals=rows,
            vectors={"backbone": moved},
            parent_hits={"l2": np.full(20, hit)},
        )
        for name, moved, hit in (
            ("untouched", values[rows], 1.0),
            ("parent", values[rows - 1], 0.0),
        )
    ]
    found = evaluate_robustness(corpus, [table], copies, parents, recipe="t", config=FAST)
    by_key = {
        (row["slice"], row["target"], row["features"]): row["value"]
        for row in found.iter_rows(named=True)
    }
    assert by_key["untouched", "copies", "backbone"] == 0.0
    assert by_key["untouched", "original", "backbone"] == 1.0
    assert by_key["untouched", "parent", "backbone"] == 1.0
    assert by_key["parent", "copies", "backbone"] == pytest.approx(1.0)
    assert by_key["parent", "original", "backbone"] == 0.0
    assert by_key["parent", "parent", "l2"] == 0.0
