"""Several real processes over gloo on this machine."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.config import ViewConfig
from ws_pipeline.backbone.history import read_history, series
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline_tests.backbone import distributed_checks
from ws_pipeline_tests.backbone.tiny_corpus import build_corpus, make_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
PLAIN = ["--mixed_precision", "no", "--dynamo_backend", "no"]
MODULE = ["-m", "ws_pipeline.backbone.train", "--job"]

SAME_DATA = 1e-5
"""Relative difference of losses over 12 steps in fp32: sums are taken in another order."""


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    """Trains with negatives and every kind of view, in units of the whole batch."""
    _, snapshot, _ = build_corpus(tmp_path)
    job = make_job(tmp_path, snapshot, log_every=1)
    views = ViewConfig(
        noise=0.2, hidden_tokens=0.1, mixtures=0.5, flip_signs=True, permutation=True
    )
    return replace(
        job,
        views=views,
        backbone=replace(job.backbone, normalization="batch"),
        loss=replace(job.loss, normalization="batch"),
    )


def environment(num_processes: int) -> dict[str, str]:
    cpu = {"ACCELERATE_USE_CPU": "true"} if num_processes > 1 else {}
    return {**os.environ, "OMP_NUM_THREADS": "1", **cpu}


def launch(job: TrainJob, path: Path) -> None:
    count = job.num_processes
    several = ["--multi_gpu"] if count > 1 else []
    numbers = ["--num_processes", str(count), "--num_machines", "1"]
    port = ["--main_process_port", str(free_port())]
    job.write(path)
    command = [*LAUNCH, *several, *numbers, *port, *PLAIN, *MODULE, str(path)]
    subprocess.run(command, env=environment(count), check=True, timeout=800)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def losses(job: TrainJob, name: str = "train/loss") -> list[float]:
    return series(read_history(Path(job.out_dir)), name)[1]


def final_weights(job: TrainJob) -> dict[str, np.ndarray]:
    return load_file(Path(job.out_dir) / "model" / "model.safetensors")


def variants(job: TrainJob, tmp_path: Path, **counts: int) -> dict[str, TrainJob]:
    return {
        name: replace(job, out_dir=str(tmp_path / name), num_processes=count)
        for name, count in counts.items()
    }


def test_negatives_are_gathered_with_their_gradients():
    port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    command = [*TORCHRUN, "--nproc-per-node", "2", *port, str(distributed_checks.__file__)]
    subprocess.run(command, env=environment(2), check=True, timeout=800)


def test_two_processes_train_like_one_with_negatives_and_all_views(job: TrainJob, tmp_path: Path):
    jobs = variants(job, tmp_path, one=1, two=2)
    for name, each in jobs.items():
        launch(each, tmp_path / f"{name}.json")
    for metric in ("train/loss", "train/loss_contrastive", "train/grad_norm"):
        one, two = (losses(each, metric) for each in jobs.values())
        assert len(one) == 12
        assert two == pytest.approx(one, rel=SAME_DATA)
    one, two = (losses(each, "val/loss_reconstruction") for each in jobs.values())
    assert two == pytest.approx(one, rel=SAME_DATA)


def test_sharded_weights_train_like_whole_ones_and_resume(job: TrainJob, tmp_path: Path):
    jobs = variants(job, tmp_path, whole=2, sharded=2)
    jobs["sharded"] = replace(
        jobs["sharded"], training=replace(job.training, sharding="fsdp2", accumulation=2)
    )
    jobs["whole"] = replace(jobs["whole"], training=replace(job.training, accumulation=2))
    for name, each in jobs.items():
        launch(each, tmp_path / f"{name}.json")
    whole, sharded = (losses(each) for each in jobs.values())
    assert sharded == pytest.approx(whole, rel=SAME_DATA)
    expected, weights = (final_weights(each) for each in jobs.values())
    assert expected.keys() == weights.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(weights[name], values, atol=1e-5, err_msg=name)
    # A killed sharded run, rebuilt from what a checkpoint in its middle holds.
    cut = Path(jobs["sharded"].out_dir)
    for name in ("model/training.json", "checkpoints/step-000000012/manifest.json"):
        (cut / name).unlink()
    newest = CheckpointFolder(out_dir=cut, job_digest=jobs["sharded"].digest()).newest()
    assert newest is not None
    assert newest.step == 10
    launch(jobs["sharded"], tmp_path / "again.json")
    for name, values in final_weights(jobs["sharded"]).items():
        assert np.array_equal(values, weights[name]), name


def test_two_nodes_on_one_machine_train_like_two_processes_on_one(job: TrainJob, tmp_path: Path):
    jobs = variants(job, tmp_path, one_node=2, two_nodes=2)
    launch(jobs["one_node"], tmp_path / "one.json")
    path = tmp_path / "two.json"
    jobs["two_nodes"].write(path)
    meet = ["--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port())]
    numbers = ["--num_processes", "2", "--num_machines", "2"]
    rest = [*PLAIN, *MODULE, str(path)]
    nodes = [
        subprocess.Popen(
            [*LAUNCH, "--multi_gpu", *numbers, *meet, "--machine_rank", str(rank), *rest],
            env=environment(2),
        )
        for rank in range(2)
    ]
    assert [node.wait(timeout=800) for node in nodes] == [0, 0]
    assert losses(jobs["two_nodes"]) == losses(jobs["one_node"])
    assert all(
        np.array_equal(values, final_weights(jobs["one_node"])[name])
        for name, values in final_weights(jobs["two_nodes"]).items()
    )
