from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.config import BackboneConfig, LossConfig, TrainingConfig, ViewConfig
from ws_pipeline.backbone.history import read_history, series
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline.errors import TrainingError
from ws_pipeline.tokens.window_batch import WindowBatch
from ws_pipeline_tests.backbone.tiny_corpus import make_batch, make_job, make_windows

GOLDEN_LOSSES = (0.27971, 0.11677, 0.04445, 0.02380)
"""Mean total loss of steps 1-5, 6-10, 11-15, 16-20 of the golden run, fp32, any CPU."""


SPEED = ("per_second", "utilization")
"""Ends of the names of metrics that the clock decides."""


class FakeBatches:
    """Batches that follow from the step; counts what was asked for."""

    def __init__(self, num_steps: int, *, same: bool = False) -> None:
        self.num_steps = num_steps
        self.same = same
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.num_steps

    @property
    def max_batch_bytes(self) -> int:
        return 0

    def read(self, step: int, out: np.ndarray | None = None) -> WindowBatch:
        self.asked.append(step)
        return make_batch(make_windows(batch=4, seed=0 if self.same else step))


class Recorder:
    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def metrics(self, step, values):
        self.points.append((step, dict(values)))

    def message(self, text):
        pass


def make_loop(job: TrainJob, *, stop_after: int | None = None, same=False, observers=()):
    out_dir = Path(job.out_dir)
    loop = TrainingLoop(
        job,
        accelerator=Accelerator(mixed_precision="no"),
        train=FakeBatches(job.training.num_steps, same=same),
        val=[FakeBatches(1).read(10_000)],
        checkpoints=CheckpointFolder(out_dir=out_dir, job_digest=job.digest()),
        observers=observers,
        stop=lambda: stop_after is not None and loop.progress.step >= stop_after,
    )
    return loop


def weights(loop: TrainingLoop) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loop.backbone.state_dict().items()}


def assert_same_weights(one: TrainingLoop, other: TrainingLoop) -> None:
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_golden_run_keeps_its_losses(tmp_path: Path):
    job = make_job(tmp_path, "x", num_steps=20, log_every=5, learning_rate=1e-2)
    recorder = Recorder()
    assert make_loop(job, observers=[recorder], same=True).run()
    losses = [values["train/loss"] for _, values in recorder.points if "train/loss" in values]
    assert losses == pytest.approx(GOLDEN_LOSSES, rel=3e-3)


def test_one_batch_is_overfitted(tmp_path: Path):
    job = make_job(tmp_path, "x", num_steps=120, learning_rate=1e-2, checkpoint_every=1000)
    job = replace(
        job,
        backbone=BackboneConfig(
            token_size=8, width=32, num_layers=2, num_heads=2, latent_size=4, projection_size=0
        ),
        loss=LossConfig(),
        views=ViewConfig(noise=0.0),
    )
    loop = make_loop(job, same=True)
    loop.run()
    _, losses = series(loop.history.points, "train/loss_reconstruction")
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("stop_after", [1, 5, 7, 11])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, stop_after: int):
    straight = make_loop(make_job(tmp_path / "a", "x"))
    assert straight.run()
    job = make_job(tmp_path / "b", "x")
    assert not make_loop(job, stop_after=stop_after).run()
    torch.manual_seed(12345)
    resumed = make_loop(job)
    assert resumed.progress.step == stop_after
    assert resumed.run()
    assert_same_weights(straight, resumed)


def test_a_killed_run_goes_on_to_the_same_bits_and_the_same_metrics(tmp_path: Path):
    straight = make_loop(make_job(tmp_path / "a", "x"))
    straight.run()
    job = make_job(tmp_path / "b", "x")
    killed = make_loop(job)
    for batch in (FakeBatches(12).read(step) for step in range(8)):  # dies after 8, saved at 5
        killed._step(batch)
        if metrics := killed._due_metrics():
            killed._tell(metrics)
        if killed.progress.step == 5:
            killed.save()
    resumed = make_loop(job)
    assert resumed.progress.step == 5
    resumed.run()
    assert_same_weights(straight, resumed)

    def points(loop: TrainingLoop):
        return [
            (p.step, {k: v for k, v in p.values.items() if not k.endswith(SPEED)})
            for p in read_history(loop.checkpoints.out_dir)
        ]

    assert points(resumed) == points(straight)


def test_a_finished_run_does_nothing_when_run_again(tmp_path: Path):
    job = make_job(tmp_path, "x")
    first = make_loop(job)
    first.run()
    again = make_loop(job)
    assert again.run()
    assert again.train.asked == []
    assert_same_weights(first, again)


def test_metrics_come_when_they_are_due(tmp_path: Path):
    recorder = Recorder()
    make_loop(make_job(tmp_path, "x"), observers=[recorder]).run()
    assert [step for step, _ in recorder.points] == [2, 4, 6, 8, 10, 12]
    with_val = [step for step, values in recorder.points if "val/loss_reconstruction" in values]
    assert with_val == [6, 12]
    assert recorder.points[0][1]["train/learning_rate"] > 0


def test_a_loss_that_is_not_finite_ends_the_run_without_a_checkpoint(tmp_path: Path):
    job = make_job(tmp_path, "x")
    loop = make_loop(job)
    with torch.no_grad():
        loop.backbone.to_token.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"before step 2 .* lower training\.learning_rate"):
        loop.run()
    assert loop.checkpoints.newest() is None


def test_the_backbone_remembers_its_window(tmp_path: Path):
    assert make_loop(make_job(tmp_path, "x")).backbone.config.window_size == 16


def test_a_head_that_nothing_trains_is_left_as_it_was(tmp_path: Path):
    job = replace(make_job(tmp_path, "x"), loss=LossConfig())
    loop = make_loop(job)
    before = weights(loop)
    loop.run()
    after = weights(loop)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if not name.startswith("project")} == changed


@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_a_step_in_parts_is_the_step_in_one(tmp_path: Path, weight: float):
    losses, loops = {}, {}
    for parts in (1, 2, 4):
        job = make_job(tmp_path / str(parts), "x", accumulation=parts, log_every=1)
        loops[parts] = make_loop(replace(job, loss=LossConfig(contrastive_weight=weight)))
        loops[parts].run()
        name = "train/loss_reconstruction" if weight else "train/loss"
        losses[parts] = series(loops[parts].history.points, name)[1]
    # A part has fewer negatives, so with them only the first step's other term agrees.
    num_equal = 1 if weight else 12
    for parts in (2, 4):
        assert losses[parts][:num_equal] == pytest.approx(losses[1][:num_equal], rel=1e-4)


def test_training_ends_when_patience_is_over_and_stays_ended(tmp_path: Path):
    job = make_job(tmp_path, "x", patience=2, evaluate_every=2, learning_rate=0.0)
    loop = make_loop(job)
    assert loop.run()
    assert loop.progress.step == 6  # the first evaluation sets the mark, two are no better
    again = make_loop(job)
    assert again.run()
    assert again.progress.step == 6
    assert again.train.asked == []


def test_patience_survives_a_kill(tmp_path: Path):
    job = make_job(tmp_path, "x", patience=3, evaluate_every=2, learning_rate=0.0)
    assert not make_loop(job, stop_after=5).run()
    resumed = make_loop(job)
    assert resumed.patience.num_worse == 1
    assert resumed.run()
    assert resumed.progress.step == 8


def test_speed_is_logged_with_the_share_of_what_the_device_can_do(tmp_path: Path):
    recorder = Recorder()
    loop = make_loop(make_job(tmp_path, "x"), observers=[recorder])
    loop.run()
    _, values = recorder.points[-1]
    flops = values["train/tokens_per_second"] * loop.throughput.flops_per_token
    assert values["train/model_flops_per_second"] == pytest.approx(flops)
    assert 0 < values["train/model_flops_utilization"] < 1


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx512_bf16"), reason="no bf16 here")
def test_bf16_stays_close_to_fp32(tmp_path: Path):
    losses = {}
    for precision in ("fp32", "bf16"):
        job = make_job(tmp_path / precision, "x", precision=precision)
        loop = make_loop(job)
        loop.run()
        assert loop.precision == precision
        losses[precision] = series(loop.history.points, "train/loss")[1]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_the_default_training_config_is_valid():
    assert TrainingConfig().num_steps > 0
