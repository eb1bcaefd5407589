"""The training loop: steps, metrics, evaluation, checkpoints. I/O only through what it is handed.

What it is: everything between a model, batches by step and a folder for checkpoints. What it is
not: one step (``step``), reading jobs, MLflow, Dagster (``train``, ``tracking``, ``pipes``). A step
is a pure function of (weights, optimiser state, step): batch, views and learning rate all follow
from the step, so a resumed run is the undisturbed one, bit for bit on CPU.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ws_pipeline.backbone.batches import (
    Batch,
    Batches,
    iterate_batches,
    num_real_tokens,
    to_windows,
)
from ws_pipeline.backbone.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    TrainingState,
    load_model,
    load_optimizer,
)
from ws_pipeline.backbone.config import Precision
from ws_pipeline.backbone.devices import choose_precision
from ws_pipeline.backbone.history import History, Observer
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.normalization import LOCAL
from ws_pipeline.backbone.optimizer import build_optimizer, learning_rate
from ws_pipeline.backbone.parallel import shard_backbone, whole_backbone
from ws_pipeline.backbone.step import LOSS_NAMES, OptimizerStep
from ws_pipeline.backbone.throughput import Throughput, flops_per_token, measure_matmul_rate
from ws_pipeline.backbone.validation import RECONSTRUCTION, Patience, evaluate_windows
from ws_pipeline.backbone.views import is_paired
from ws_pipeline.errors import TrainingError


@dataclass(kw_only=True, slots=True)
class Progress:
    """What has happened; mutable.

    Attributes:
        step: Optimiser steps done, over all attempts.
        recent: Losses and gradient norm of each step since the last metric point; a scalar is
            fetched from the device at metric points only.
    """

    step: int = 0
    recent: list[Tensor] = field(default_factory=list)


class TrainingLoop:
    """One attempt at a job; resumes from the newest checkpoint when it is made.

    Args:
        job: What to train.
        accelerator: Where, and with how many others.
        train: Batches by step, this process's share of each.
        val: Batches of the validation split, this process's share of each; may be empty.
        checkpoints: Where to save to and resume from.
        observers: Told on the main process.
        stop: Asked after steps; true ends the attempt with a checkpoint.
    """

    def __init__(
        self,
        job: TrainJob,
        *,
        accelerator: Accelerator,
        train: Batches,
        val: Sequence[Batch],
        checkpoints: CheckpointFolder,
        observers: Sequence[Observer] = (),
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.job = job
        self.config = job.training
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.train = train
        self.val = val
        self.checkpoints = checkpoints
        self.stop = stop
        self.precision: Precision = choose_precision(self.config.precision, self.device)
        self.progress = Progress()
        self.patience = Patience(limit=self.config.patience)
        self.num_views = 2 if job.loss.contrastive_weight > 0.0 else 1
        self.throughput = self._build_throughput()
        checkpoint = checkpoints.newest()
        self.backbone = self._build_backbone(checkpoint)
        self.model: nn.Module = self.backbone
        if self.config.sharding == "none":
            self.model = accelerator.prepare_model(self.backbone)
        self.optimizer = build_optimizer(self.backbone, self.config)
        self.stepper = OptimizerStep(
            job,
            accelerator=accelerator,
            model=self.model,
            backbone=self.backbone,
            optimizer=self.optimizer,
            precision=self.precision,
        )
        if checkpoint is not None:
            self._resume(checkpoint)
        self.history = History(checkpoints.out_dir, step=self.progress.step, main=self.is_main)
        self.observers: list[Observer] = [self.history, *observers]

    @property
    def is_main(self) -> bool:
        """Whether this process reports and writes."""
        return bool(self.accelerator.is_main_process)

    def run(self) -> bool:
        """Train to the end, or until patience is over.

        Returns:
            False if it was asked to stop before; a checkpoint is there then.

        Raises:
            TrainingError: If the loss is no longer finite.
        """
        self.model.train()
        num_steps = self.config.num_steps
        if self.patience.is_over:
            return True
        self.throughput.start()  # waiting for data counts
        for batch in iterate_batches(self.train, self.progress.step, num_steps, device=self.device):
            self._step(batch)
            step = self.progress.step
            stopping = self._is_stopping()
            metrics = self._due_metrics()
            self._tell(metrics)
            self.throughput.pause()
            ending = step == num_steps or self.patience.is_over
            if stopping or ending or step % self.config.checkpoint_every == 0:
                self.save()
            if ending:
                return True
            if stopping:
                return False
            self.throughput.start()
        return True

    def evaluate(self) -> dict[str, float]:
        """Return the losses on the clean validation windows; nothing without any."""
        return evaluate_windows(
            self.backbone,
            self.val,
            self.job.loss,
            accelerator=self.accelerator,
            precision=self.precision,
        )

    def finished_backbone(self) -> Backbone:
        """Return the backbone with all its weights, on the main process; all have to ask.

        From now on its batches are its own: the processes part here.
        """
        self.backbone.over = LOCAL
        return whole_backbone(self.backbone, main=self.is_main)

    def save(self) -> None:
        """Write a checkpoint; the other processes wait."""
        recent = self._shared(self.progress.recent)
        self._require_finite(recent)  # a checkpoint of NaN could never be trained out of
        sharded = self.config.sharding != "none"
        if self.is_main or sharded:
            state = TrainingState.collect(self.backbone, self.optimizer, main=self.is_main)
        if self.is_main:
            self.history.sync()
            values = {
                "recent": recent.tolist() if recent is not None else [],
                "best": self.patience.best,
                "num_worse": self.patience.num_worse,
            }
            self.checkpoints.save(
                state, step=self.progress.step, values=values, keep=self.config.keep_checkpoints
            )
        self.accelerator.wait_for_everyone()

    def _build_backbone(self, checkpoint: Checkpoint | None) -> Backbone:
        """Build the model, with the checkpoint's weights if there is one, compiled and sharded."""
        generator = torch.Generator().manual_seed(self.config.seed)
        config = dataclasses.replace(self.job.backbone, window_size=self.config.window_size)
        backbone = Backbone(config, generator=generator)
        if checkpoint is not None:
            load_model(checkpoint, backbone)
        backbone = backbone.to(self.device)
        if backbone.project is not None and self.num_views == 1:
            backbone.project.requires_grad_(requires_grad=False)  # DDP waits for all gradients
        if self.config.compile:
            for stack in (backbone.encoder, backbone.decoder):
                for block in stack.blocks:
                    block.compile()  # all blocks are one shape, so one compilation serves them
        if self.config.sharding == "fsdp2":
            shard_backbone(backbone)
        return backbone

    def _build_throughput(self) -> Throughput:
        flops = flops_per_token(self.job.backbone, self.config.window_size)
        rate = measure_matmul_rate(self.device, self.precision) if self.is_main else 1.0
        return Throughput(
            flops_per_token=self.num_views * flops,
            matmul_rate=rate * self.accelerator.num_processes,
        )

    def _resume(self, checkpoint: Checkpoint) -> None:
        load_optimizer(checkpoint, self.optimizer)
        self.progress.step = checkpoint.step
        values = checkpoint.values
        rows = torch.tensor(values["recent"], dtype=torch.float64, device=self.device)
        self.progress.recent = list(rows)
        self.patience.best, self.patience.num_worse = values["best"], values["num_worse"]

    def train_on(self, clean: Windows) -> None:
        """Do one optimiser step on this process's share of a step's windows."""
        self.progress.recent.append(self.stepper.take(clean, self.progress.step))
        self.progress.step += 1

    def _step(self, batch: Batch) -> None:
        self.train_on(to_windows(batch, self.device))
        repeats = 2 if is_paired(self.job.views, self.job.loss) else 1
        own = num_real_tokens(batch) // repeats
        self.throughput.num_tokens += own * self.accelerator.num_processes

    def _due_metrics(self) -> dict[str, float]:
        """Return the metrics that are due after this step; the same on every process."""
        step, config = self.progress.step, self.config
        last = step == config.num_steps
        values: dict[str, float] = {}
        if last or step % config.log_every == 0:
            values |= self._average_recent()
        if last or step % config.evaluate_every == 0:
            self.throughput.pause()
            found = self.evaluate()
            values |= found
            if RECONSTRUCTION in found:
                self.patience.see(found[RECONSTRUCTION])
        return values

    def _average_recent(self) -> dict[str, float]:
        """Average over the recent steps and all processes, and begin anew."""
        recent = self._shared(self.progress.recent)
        assert recent is not None  # noqa: S101 - a step was done just now
        self._require_finite(recent)
        self.progress.recent = []
        names = [f"train/{name}" for name in (*LOSS_NAMES, "grad_norm")]
        values = dict(zip(names, recent.mean(dim=0).tolist(), strict=True))
        values["train/learning_rate"] = learning_rate(self.progress.step - 1, self.config)
        return values | self.throughput.metrics()

    def _shared(self, rows: Sequence[Tensor]) -> Tensor | None:
        """Average rows over the processes; ``(steps, values)``."""
        if not rows:
            return None
        mean: Tensor = self.accelerator.reduce(torch.stack(list(rows)), reduction="mean")
        return mean

    def _require_finite(self, recent: Tensor | None) -> None:
        if recent is not None and not bool(recent.isfinite().all()):
            raise TrainingError(
                "Loss and gradients must stay finite, but shortly before step "
                f"{self.progress.step} they are not; lower training.learning_rate or "
                "training.grad_clip and train again."
            )

    def _is_stopping(self) -> bool:
        """Ask whether to stop; several processes agree on it where they synchronise anyway."""
        if self.accelerator.num_processes == 1:
            return self.stop()
        if self.progress.step % self.config.log_every:
            return False
        flag = torch.tensor(float(self.stop()), device=self.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())

    def _tell(self, values: dict[str, float]) -> None:
        if values and self.is_main:
            for observer in self.observers:
                observer.metrics(self.progress.step, values)
