from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from ws_pipeline.zoo.aligned_distances import MAX_PAIRS, sample_pairs
from ws_pipeline.zoo.diversity import DIVERSITY_SCHEMA, measure_diversity
from ws_pipeline.zoo.index import read_index


@pytest.fixture(scope="module")
def table(tiny_folder: Path) -> pl.DataFrame:
    return measure_diversity(tiny_folder)


def value_of(table: pl.DataFrame, **where: str) -> float:
    conditions = [pl.col(name) == value for name, value in where.items()]
    return float(table.filter(*conditions)["value"].item())


def test_the_table_is_long_and_complete(table: pl.DataFrame) -> None:
    assert table.schema == pl.Schema(DIVERSITY_SCHEMA)
    assert table["value"].is_finite().all()
    assert set(table["family"]) == {"mlp", "cnn"}
    keys = ["family", "space", "metric", "group", "statistic"]
    assert not table.select(keys).is_duplicated().any()
    assert {"l2_distance", "cosine_distance", "norm", "accuracy", "agreement"} <= set(
        table["metric"]
    )


def test_relatives_are_closer_than_strangers(table: pl.DataFrame) -> None:
    for metric in ("l2_distance", "cosine_distance"):
        where = {"family": "mlp", "metric": metric, "statistic": "median"}
        assert value_of(table, group="same_root", **where) < value_of(
            table, group="other_root", **where
        )


def test_distances_and_agreement_are_those_of_the_files(
    table: pl.DataFrame, tiny_folder: Path
) -> None:
    index = read_index(tiny_folder)
    names = index.filter(pl.col("family") == "cnn")["name"]
    one, other = (load_file(tiny_folder / "repos" / n / "model.safetensors") for n in names)
    expected = np.sqrt(
        sum(np.sum((one[k] - other[k]) ** 2) for k in one if one[k].dtype.kind == "f")
    )
    where = {"family": "cnn", "group": "other_root", "statistic": "mean"}
    assert value_of(table, metric="l2_distance", **where) == pytest.approx(expected, rel=1e-5)
    predicted = load_file(tiny_folder / "predictions" / "cnn-digits.safetensors")
    same = np.mean(predicted[names[0]] == predicted[names[1]])
    assert value_of(table, metric="agreement", **where) == pytest.approx(same)


def test_alignment_brings_strangers_closer_and_relatives_are_there_already(
    table: pl.DataFrame,
) -> None:
    where = {"family": "mlp", "statistic": "mean"}
    gain = {
        group: value_of(table, metric="alignment_gain", group=group, **where)
        for group in ("same_root", "other_root")
    }
    assert 0 <= gain["same_root"] < 0.02
    assert gain["other_root"] > 0.1
    smallest = {"family": "cnn", "metric": "alignment_gain", "statistic": "min"}
    assert value_of(table, group="other_root", **smallest) >= 0
    assert value_of(table, metric="aligned_l2_distance", group="other_root", **where) < value_of(
        table, metric="l2_distance", group="other_root", **where
    )


def test_pairs_are_a_fixed_sample_of_relatives_and_strangers() -> None:
    roots = [str(number // 10) for number in range(100)]
    pairs = sample_pairs(roots)
    assert len(set(pairs)) == len(pairs) == 2 * MAX_PAIRS
    assert sum(roots[one] == roots[other] for one, other in pairs) == MAX_PAIRS
    assert pairs == sample_pairs(roots)
    assert sample_pairs(["a"]) == []
