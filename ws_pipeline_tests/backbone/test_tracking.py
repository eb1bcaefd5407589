import json
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.backbone.figures import draw_losses
from ws_pipeline.backbone.history import MetricPoint
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.tracking import MlflowRun, flatten
from ws_pipeline.errors import TrainingError
from ws_pipeline_tests.backbone.tiny_corpus import build_corpus, make_job

CORPUS = pl.DataFrame(
    {
        "split": ["train", "train", "train", "val", "test"],
        "family": ["mlp", "cnn", "mlp", "mlp", "cnn"],
        "num_params": [10, 30, 20, 10, 30],
    }
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    return folder / "mlflow.db"


@pytest.fixture
def job(tmp_path: Path, database: Path) -> TrainJob:
    return replace(
        make_job(tmp_path, "s" * 64),
        mlflow_tracking_uri=f"sqlite:///{database}",
        mlflow_experiment="study",
        mlflow_ui_url="http://127.0.0.1:5000/",
        tags={"dagster_run_id": "d-1"},
    )


def open_run(job: TrainJob) -> MlflowRun:
    return MlflowRun.open(job, tags={"precision": "fp32"}, corpus=CORPUS)


def read(job: TrainJob, run_id: str):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=job.mlflow_tracking_uri)
    return client, client.get_run(run_id)


def test_a_run_holds_the_recipe_metrics_figures_and_lineage(job: TrainJob, database: Path):
    run = open_run(job)
    run.metrics(2, {"train/loss": 0.5})
    run.metrics(4, {"train/loss": 0.25, "val/loss_reconstruction": 0.3})
    run.figure("loss", draw_losses([MetricPoint(step=2, values={"train/loss": 0.5})]))
    run.summary({"num_params": 3})
    run.close("FINISHED")
    client, found = read(job, run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == f"test-seed0-{job.digest()[:8]}"
    assert found.data.params == {"backbone.width": "24", "families": '["a", "b"]'}
    assert found.data.tags["dagster_run_id"] == "d-1"
    assert found.data.tags["precision"] == "fp32"
    assert found.data.tags["positions"] == "banded"
    history = client.get_metric_history(run.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(2, 0.5), (4, 0.25)]
    assert (database.parent / "artifacts" / run.run_id / "artifacts/figures/loss.png").is_file()
    experiment = found.info.experiment_id
    assert run.url == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run.run_id}"


def test_the_splits_of_the_snapshot_are_the_runs_data_sets(job: TrainJob):
    for _ in range(2):  # a retry names them again
        run = open_run(job)
    _, found = read(job, run.run_id)
    inputs = {each.dataset.name: each for each in found.inputs.dataset_inputs}
    assert set(inputs) == {"corpus-train", "corpus-val"}
    for name, context in (("corpus-train", "training"), ("corpus-val", "validation")):
        assert inputs[name].dataset.digest == "s" * 12
        assert {tag.key: tag.value for tag in inputs[name].tags} == {"mlflow.data.context": context}
    assert json.loads(inputs["corpus-train"].dataset.profile) == {
        "num_rows": 3,
        "num_params": 60,
        "num_families": 2,
        "families": "mlp 2, cnn 1",
    }
    columns = json.loads(inputs["corpus-train"].dataset.schema)["mlflow_colspec"]
    assert {each["name"]: each["type"] for each in columns} == {
        "family": "string",
        "num_params": "long",
    }


def test_a_data_set_leads_back_to_its_rows(tmp_path: Path):
    from ws_pipeline.backbone.corpus_dataset import SnapshotSource, list_inputs

    store, snapshot, corpus = build_corpus(tmp_path)
    train, val = list_inputs(str(tmp_path / "store"), snapshot, corpus)
    source = SnapshotSource.from_json(val.dataset.source)
    assert source.load().equals(store.snapshots.scan(snapshot).collect().filter(split="val"))
    assert train.dataset.source_type == val.dataset.source_type == "ws_pipeline_snapshot"


def test_a_retry_continues_the_run_without_duplicate_points(job: TrainJob):
    first = open_run(job)
    first.metrics(2, {"train/loss": 0.5})
    first.flush()
    first.metrics(4, {"train/loss": 0.4})  # never sent: killed
    second = open_run(job)
    assert second.run_id == first.run_id
    second.replay([MetricPoint(step=step, values={"train/loss": 0.5}) for step in (2, 4)])
    second.metrics(6, {"train/loss": 0.3})
    second.close("FINISHED")
    client, _ = read(job, first.run_id)
    history = client.get_metric_history(first.run_id, "train/loss")
    assert [metric.step for metric in history] == [2, 4, 6]


def test_a_deleted_run_is_not_continued(job: TrainJob):
    first = open_run(job)
    client, _ = read(job, first.run_id)
    client.delete_run(first.run_id)
    assert open_run(job).run_id != first.run_id


def test_a_store_that_goes_away_costs_no_point(job: TrainJob, monkeypatch, caplog):
    from mlflow.exceptions import MlflowException

    run = open_run(job)
    run.metrics(2, {"train/loss": 0.5})

    def fail(*args, **kwargs):
        raise MlflowException("away")

    with monkeypatch.context() as patch:
        patch.setattr(run._client, "log_batch", fail)
        assert not run.flush()
    assert "will try again: away" in caplog.text
    run.close("FINISHED")
    client, _ = read(job, run.run_id)
    assert len(client.get_metric_history(run.run_id, "train/loss")) == 1


def test_a_store_that_cannot_be_opened_is_said_so(job: TrainJob, tmp_path: Path):
    (tmp_path / "file").write_text("")
    bad = replace(job, mlflow_tracking_uri=f"file://{tmp_path}/file")
    with pytest.raises(TrainingError, match="MLflow at file://"):
        open_run(bad)


def test_flatten_names_nested_values_with_dots():
    values = {"a": {"b": 1, "c": {"d": True}}, "e": (1, 2), "f": None}
    assert dict(flatten(values)) == {"a.b": "1", "a.c.d": "True", "e": "[1, 2]", "f": "None"}


def register(job: TrainJob, tmp_path: Path, error: str, snapshot: str) -> str:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    run = open_run(replace(job, out_dir=str(tmp_path / f"run-{error}-{snapshot}")))
    run.register(folder, "study", {"val_relative_error_median": error, "snapshot": snapshot})
    run.register(folder, "study", {"val_relative_error_median": error, "snapshot": snapshot})
    return run.run_id


def test_the_best_version_of_a_snapshot_has_the_alias(job: TrainJob, tmp_path: Path):
    client, _ = read(job, open_run(job).run_id)

    def best() -> str:
        return client.get_model_version_by_alias("study-backbone", "best").run_id

    first = register(job, tmp_path, "0.5", "a")
    assert best() == first
    better = register(job, tmp_path, "0.4", "a")
    assert best() == better
    register(job, tmp_path, "0.45", "a")
    assert best() == better
    newer = register(job, tmp_path, "0.9", "b")
    assert best() == newer
    versions = client.search_model_versions("name='study-backbone'")
    assert len(versions) == 4  # registering twice is registering once
    artifacts = client.list_artifacts(newer, "model")
    assert [artifact.path for artifact in artifacts] == ["model/config.json"]


def test_the_machines_load_is_logged_and_a_retry_counts_on(job: TrainJob, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    for _ in range(2):
        run = open_run(job)
        run.watch_system(job.mlflow_tracking_uri)
        client, _ = read(job, run.run_id)
        name, deadline = "system/cpu_utilization_percentage", time.monotonic() + 60
        before = len(client.get_metric_history(run.run_id, name))
        while len(client.get_metric_history(run.run_id, name)) <= before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.close("KILLED")
    steps = [metric.step for metric in client.get_metric_history(run.run_id, name)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 2
