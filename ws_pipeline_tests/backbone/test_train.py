import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator

from ws_pipeline.backbone import trainer as module
from ws_pipeline.backbone.attempt import within_budget
from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.history import read_history, series
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.pipes import DagsterReport
from ws_pipeline.backbone.signals import STOPPED_EXIT_CODE
from ws_pipeline.backbone.train import main
from ws_pipeline.backbone.trainer import run_job, run_reported
from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline_tests.backbone.test_pipes import FakeContext
from ws_pipeline_tests.backbone.tiny_corpus import build_corpus, make_job

TRAINER = [sys.executable, "-m", "ws_pipeline.backbone.train"]


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    _, snapshot, _ = build_corpus(tmp_path)
    return make_job(tmp_path, snapshot)


@pytest.fixture(autouse=True)
def leave_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own process must not die with its launcher or swallow Ctrl-C."""
    monkeypatch.setattr(module, "end_with_parent", lambda: None)
    monkeypatch.setattr(module.StopRequest, "listen", lambda self: None)


def run(job: TrainJob, report: DagsterReport | None = None):
    report = report or DagsterReport(None, num_steps=job.training.num_steps)
    return run_job(job, Accelerator(mixed_precision="no"), report, began=time.monotonic())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_job_becomes_a_model_that_loads_a_result_and_a_materialisation(job: TrainJob):
    context = FakeContext()
    result = run(job, DagsterReport(context, num_steps=12))
    out_dir = Path(job.out_dir)
    backbone = Backbone.from_pretrained(out_dir / "model")
    assert backbone.config == replace(job.backbone, window_size=16)
    assert result.model_sha256 == sha256(out_dir / "model" / "model.safetensors")
    assert result.num_models == {"test": 1, "train": 4, "val": 1}
    assert result.num_steps == 12
    assert 0 < result.metrics["val/relative_error_median"] < 1
    assert json.loads((out_dir / "result.json").read_text())["job_digest"] == job.digest()
    assert list((out_dir / "staging").iterdir()) == []
    metadata, version = context.materializations[0]
    assert version == result.model_sha256
    assert metadata["num_train_models"]["raw_value"] == 4
    assert metadata["val_relative_error_median"]["raw_value"] < 1
    assert "training 14,818 parameters on 4 models from step 0 to 12 in fp32" in context.lines[0]
    assert any(line.startswith("step 12/12: loss") for line in context.lines)


def test_a_model_that_is_there_is_reported_and_left_alone(job: TrainJob):
    first = run(job)
    weights = Path(job.out_dir) / "model" / "model.safetensors"
    changed = weights.stat().st_mtime_ns
    context = FakeContext()
    again = run(replace(job, tags={"x": "y"}), DagsterReport(context, num_steps=12))
    assert again == first
    assert weights.stat().st_mtime_ns == changed
    assert context.lines == ["test is trained already; its model is taken as it is"]
    assert len(context.materializations) == 1


def test_another_jobs_model_is_not_overwritten(job: TrainJob):
    run(job)
    other = replace(job, training=replace(job.training, seed=7))
    with pytest.raises(ConfigError, match="out_dir must be empty or of the same job"):
        run(other)


def test_the_same_job_gives_the_same_bits_elsewhere(job: TrainJob, tmp_path: Path):
    assert run(job).model_sha256 == run(replace(job, out_dir=str(tmp_path / "b"))).model_sha256


def test_a_corpus_without_training_models_is_refused(tmp_path: Path):
    store, _, corpus = build_corpus(tmp_path)
    snapshot = store.snapshots.create(corpus.filter(corpus["split"] != "train"))
    with pytest.raises(MissingInputError, match="needs models in the train split"):
        run(make_job(tmp_path, snapshot))


def test_a_corpus_without_validation_models_is_fine(tmp_path: Path):
    store, _, corpus = build_corpus(tmp_path)
    snapshot = store.snapshots.create(corpus.filter(corpus["split"] == "train"))
    assert "val/relative_error_median" not in run(make_job(tmp_path, snapshot)).metrics


def test_another_number_of_processes_than_launched_is_refused(job: TrainJob):
    with pytest.raises(ConfigError, match=r"num_processes = 2 .* ACCELERATE_USE_CPU=true"):
        run(replace(job, num_processes=2))


def test_torch_is_loaded_only_after_its_threads_are_told_to_sleep(job: TrainJob, tmp_path: Path):
    job.write(tmp_path / "job.json")
    code = (
        "import os, sys; import ws_pipeline.backbone.train as train; "
        "assert 'torch' not in sys.modules; old = train.let_threads_sleep; "
        "train.let_threads_sleep = lambda: ('torch' in sys.modules and sys.exit(9), old()); "
        f"sys.argv = ['train', '--job', {str(tmp_path / 'job.json')!r}]; code = train.main(); "
        "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'; assert 'torch' in sys.modules; "
        "sys.exit(code)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )


def test_bad_usage_is_one_line_and_exit_code_2(tmp_path: Path, capsys):
    assert main(["--job", str(tmp_path / "nothing.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error[missing_input]: A job file must exist")
    assert error.count("\n") == 1


def test_a_refused_job_is_told_to_dagster_with_its_reason(job: TrainJob, tmp_path: Path):
    context = FakeContext()
    report = DagsterReport(context, num_steps=12)
    with pytest.raises(ConfigError):
        run_reported(
            replace(job, num_processes=2), Accelerator(mixed_precision="no"), report, began=0.0
        )
    assert context.custom[0]["reason"] == "invalid_config"
    assert context.custom[0]["permanent"] is True


def test_the_figures_look_at_small_models_first(tmp_path: Path, monkeypatch):
    _, _, corpus = build_corpus(tmp_path)
    monkeypatch.setattr("ws_pipeline.backbone.attempt.MAX_SUMMARY_VALUES", 400)
    assert within_budget(corpus)["num_params"].to_list() == [174, 174]


@pytest.mark.slow
def test_a_trained_model_is_in_mlflow_with_its_figures_and_its_alias(job: TrainJob, tmp_path: Path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    result = run(replace(job, mlflow_tracking_uri=uri, mlflow_experiment="study"))
    client = MlflowClient(tracking_uri=uri)
    best = client.get_model_version_by_alias("study-backbone", "best")
    assert best.run_id == result.mlflow_run_id
    assert best.tags["model_sha256"] == result.model_sha256
    assert best.tags["snapshot"] == job.snapshot
    found = client.get_run(result.mlflow_run_id)
    assert found.info.status == "FINISHED"
    names = {"train/model_flops_utilization", "val/loss_reconstruction", "train/grad_norm"}
    assert names <= found.data.metrics.keys()
    files = {each.path for each in client.list_artifacts(result.mlflow_run_id, "model")}
    assert {"model/model.safetensors", "model/config.json", "model/training.json"} <= files
    figures = {each.path for each in client.list_artifacts(result.mlflow_run_id, "figures")}
    assert len(figures) == 3


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_kills_and_retries_end_in_the_undisturbed_runs_bits(job: TrainJob, tmp_path: Path):
    job = replace(job, training=replace(job.training, num_steps=400, checkpoint_every=3))
    expected = run(replace(job, out_dir=str(tmp_path / "straight")))
    job.write(tmp_path / "job.json")
    command = [*TRAINER, "--job", str(tmp_path / "job.json")]
    generator = random.Random(0)
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
        if kills < 6:
            seen = len(list((Path(job.out_dir) / "checkpoints").glob("step-*")))
            wait_for_a_checkpoint(process, Path(job.out_dir), seen)
            time.sleep(generator.uniform(0.0, 0.5))
            process.kill()
            kills += 1
        if process.wait() == 0:
            break
    assert kills == 6
    assert sha256(Path(job.out_dir) / "model" / "model.safetensors") == expected.model_sha256
    steps, _ = series(read_history(Path(job.out_dir)), "train/loss")
    assert steps == list(range(2, 401, 2))


def wait_for_a_checkpoint(process: "subprocess.Popen[bytes]", out_dir: Path, seen: int) -> None:
    """Waits until this attempt has written something."""
    before = {path.name for path in (out_dir / "checkpoints").glob("step-*")}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        now = {path.name for path in (out_dir / "checkpoints").glob("step-*")}
        if now - before:
            return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sigterm_writes_a_checkpoint_and_ends_with_143(job: TrainJob, tmp_path: Path):
    job = replace(
        job, training=replace(job.training, num_steps=3000, checkpoint_every=10**6, log_every=500)
    )
    job.write(tmp_path / "job.json")
    command = [*TRAINER, "--job", str(tmp_path / "job.json")]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not read_history(Path(job.out_dir)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == STOPPED_EXIT_CODE
    newest = CheckpointFolder(out_dir=Path(job.out_dir), job_digest=job.digest()).newest()
    assert newest is not None
    assert 0 < newest.step < 3000
