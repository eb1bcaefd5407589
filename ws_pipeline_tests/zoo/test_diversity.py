import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import cohen_kappa_score

from ws_pipeline.zoo.aligned_distances import MAX_PAIRS, sample_pairs
from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.diversity import measure_diversity
from ws_pipeline.zoo.diversity_rows import DIVERSITY_SCHEMA
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.train import train_zoo


@pytest.fixture
def table(tiny_table: pl.DataFrame) -> pl.DataFrame:
    return tiny_table


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


def test_behaviour_is_measured_on_the_models_themselves(
    table: pl.DataFrame, tiny_folder: Path
) -> None:
    index = read_index(tiny_folder).filter(pl.col("family") == "cnn")
    names = index["name"].to_list()
    predicted = load_file(tiny_folder / "predictions" / "cnn-digits.safetensors")
    labels = load_dataset("digits").test_labels
    wrong = [predicted[name] != labels for name in names]
    assert [1 - own.mean() for own in wrong] == pytest.approx(index["accuracy"].to_list(), abs=1e-6)
    where = {"family": "cnn", "statistic": "mean"}
    kappa = value_of(table, metric="kappa_of_errors", group="other_root", **where)
    assert kappa == pytest.approx(cohen_kappa_score(*wrong))
    assert 0 < value_of(table, metric="cka", group="other_root", **where) <= 1
    assert 0 <= value_of(table, metric="calibration_error", group="digits", **where) <= 1
    drops = [
        value_of(table, metric=f"accuracy_drop_{change}", group="digits", **where)
        for change in ("noise_0.1", "noise_0.3", "shift_1", "shift_2")
    ]
    assert drops[1] > drops[0]
    assert max(drops) > 0.05


def test_factors_are_described_level_by_level_and_by_what_they_explain(
    reported_folder: Path,
) -> None:
    config = zoo_config("tiny")
    grid = replace(config.populations[0], name="mlp", seeds=(0, 1, 2, 3), keep_epochs=())
    folder = reported_folder.parent / "factors"
    train_zoo(replace(config, populations=(grid,)), folder, show_progress=False)
    found = measure_diversity(folder)
    where = {"family": "mlp", "metric": "accuracy", "statistic": "mean"}
    slow = value_of(found, group="digits/pretrain: learning_rate=0.0003", **where)
    fast = value_of(found, group="digits/pretrain: learning_rate=0.01", **where)
    assert fast > slow + 0.2
    explained = {"family": "mlp", "statistic": "explained_adjusted"}
    rate, seed = (
        value_of(found, metric="accuracy", group=f"digits/pretrain: {factor}", **explained)
        for factor in ("learning_rate", "seed")
    )
    assert rate > 0.9
    assert seed < 0.2
    assert (
        value_of(found, metric="weights", group="digits/pretrain: learning_rate", **explained)
        < rate
    )


def test_without_the_data_set_what_needs_its_labels_is_left_out_with_a_warning(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(tiny_folder, folder)
    index = pl.read_parquet(folder / "index.parquet").with_columns(dataset=pl.lit("mnist"))
    index.write_parquet(folder / "index.parquet")
    metrics = set(measure_diversity(folder)["metric"])
    assert "kappa_of_errors" not in metrics
    assert "agreement" in metrics
    assert "on mnist are left out" in caplog.text
