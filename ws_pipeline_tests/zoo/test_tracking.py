"""A zoo is one run in MLflow, with its distributions as metrics and its figures as artifacts."""

from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.errors import TrainingError
from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.tracking import EXPERIMENT, log_zoo


def test_a_zoo_has_one_run_that_holds_its_report(
    reported_folder: Path, tiny_table: pl.DataFrame, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config, report = zoo_config("tiny"), reported_folder / "report"
    run_id = log_zoo(config, report, tiny_table, {"num_repos": 1}, uri=uri)
    assert log_zoo(config, report, tiny_table, {"num_repos": 9}, uri=uri) == run_id
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["num_repos"] == 9
    best = read_index(reported_folder).filter(pl.col("family") == "cnn")["accuracy"].max()
    assert run.data.metrics["cnn/digits/accuracy/max"] == pytest.approx(best)
    assert not any(": " in name for name in run.data.metrics)
    assert '"learning_rate": [0.0003, 0.01]' in run.data.params["population.mlp-digits"]
    figures = {item.path for item in client.list_artifacts(run_id, "figures")}
    assert "figures/accuracy.png" in figures
    assert "README.md" in {item.path for item in client.list_artifacts(run_id)}


def test_a_store_that_does_not_take_it_is_named(
    reported_folder: Path, tiny_table: pl.DataFrame
) -> None:
    with pytest.raises(TrainingError, match="MLflow at file:///nowhere must take the zoo's run"):
        log_zoo(
            zoo_config("tiny"), reported_folder / "report", tiny_table, {}, uri="file:///nowhere"
        )
