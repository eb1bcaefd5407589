"""The training loop: steps, metrics, evaluation, checkpoints. I/O only through what it is handed.

What it is: everything between a model, batches by step and a folder for checkpoints. What it is
not: reading jobs, MLflow, Dagster (``train``, ``tracking``, ``pipes``). A step is a pure function
of (weights, optimiser state, step): batch, views and learning rate all follow from the step, so a
resumed run is the undisturbed one, bit for bit on CPU.
"""

import dataclasses
import time
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
from ws_pipeline.backbone.checkpoints import CheckpointFolder, load_checkpoint
from ws_pipeline.backbone.config import Precision
from ws_pipeline.backbone.devices import autocast, choose_precision
from ws_pipeline.backbone.history import History, Observer
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loss import Losses, backbone_loss
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.optimizer import build_optimizer, one_cycle, set_learning_rate
from ws_pipeline.backbone.views import augment_windows, make_views, step_generator
from ws_pipeline.errors import TrainingError

LOSS_NAMES = ("loss", "loss_reconstruction", "loss_contrastive", "loss_scale")
"""Of the fields of :class:`Losses`, as they are logged."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """What has happened; mutable.

    Attributes:
        step: Optimiser steps done, over all attempts.
        recent: Losses and gradient norm of each step since the last metric point; a scalar is
            fetched from the device at metric points only.
        num_tokens: Real tokens this process trained on in this attempt.
        seconds: Wall time of this attempt's training steps, without evaluation and checkpoints.
    """

    step: int = 0
    recent: list[Tensor] = field(default_factory=list)
    num_tokens: int = 0
    seconds: float = 0.0


class TrainingLoop:
    """One attempt at a job; resumes from the newest checkpoint when it is made.

    Args:
        job: What to train.
        accelerator: Where, and with how many others.
        train: Batches by step, this process's share of each.
        val: Batches of the validation split, all of each; may be empty.
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
        generator = torch.Generator().manual_seed(self.config.seed)
        backbone = dataclasses.replace(job.backbone, window_size=job.training.window_size)
        self.backbone = Backbone(backbone, generator=generator).to(self.device)
        if self.backbone.project is not None and job.loss.contrastive_weight == 0.0:
            self.backbone.project.requires_grad_(requires_grad=False)  # DDP waits for all gradients
        self.optimizer = build_optimizer(self.backbone, self.config)
        self._resume()
        self.history = History(checkpoints.out_dir, step=self.progress.step, main=self.is_main)
        self.observers: list[Observer] = [self.history, *observers]
        self.model: nn.Module = accelerator.prepare_model(self.backbone)

    @property
    def is_main(self) -> bool:
        """Whether this process reports and writes."""
        return bool(self.accelerator.is_main_process)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens per second of all processes, while training steps ran."""
        progress = self.progress
        speed = progress.num_tokens / progress.seconds if progress.seconds else 0.0
        return speed * float(self.accelerator.num_processes)

    def run(self) -> bool:
        """Train to the end.

        Returns:
            False if it was asked to stop before; a checkpoint is there then.

        Raises:
            TrainingError: If the loss is no longer finite.
        """
        self.model.train()
        num_steps = self.config.num_steps
        for batch in iterate_batches(self.train, self.progress.step, num_steps, device=self.device):
            self._step(batch)
            step = self.progress.step
            stopping = self._is_stopping()
            if metrics := self._due_metrics():
                self._tell(metrics)
            if stopping or step == num_steps or step % self.config.checkpoint_every == 0:
                self.save()
            if stopping and step < num_steps:
                return False
        return True

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the losses on the clean validation windows; nothing without any."""
        if not self.val:
            return {}
        self.backbone.eval()
        totals, weight = torch.zeros(len(LOSS_NAMES), dtype=torch.float64), 0
        for batch in self.val:
            clean = to_windows(batch, self.device)
            with autocast(self.precision, self.device):
                output = self.backbone(*clean)
            count = num_real_tokens(batch)
            totals += count * self._numbers(backbone_loss(output, clean, self.job.loss)).cpu()
            weight += count
        self.backbone.train()
        values = dict(zip(LOSS_NAMES, (totals / max(weight, 1)).tolist(), strict=True))
        return {f"val/{name}": values[name] for name in ("loss_reconstruction", "loss_scale")}

    def save(self) -> None:
        """Write a checkpoint; the other processes wait."""
        recent = self._shared(self.progress.recent)
        self._require_finite(recent)  # a checkpoint of NaN could never be trained out of
        if self.is_main:
            self.history.sync()
            self.checkpoints.save(
                self.backbone,
                self.optimizer,
                step=self.progress.step,
                values={"recent": recent.tolist() if recent is not None else []},
                keep=self.config.keep_checkpoints,
            )
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        checkpoint = self.checkpoints.newest()
        if checkpoint is None:
            return
        load_checkpoint(checkpoint, self.backbone, self.optimizer)
        self.progress.step = checkpoint.step
        rows = torch.tensor(checkpoint.values["recent"], dtype=torch.float64, device=self.device)
        self.progress.recent = list(rows)

    def _step(self, batch: Batch) -> None:
        """Do one optimiser step."""
        began = time.perf_counter()
        step, config = self.progress.step, self.config
        rank = self.accelerator.process_index
        generator = step_generator(config.seed, step, rank, device=self.device)
        clean = to_windows(batch, self.device)
        clean = augment_windows(clean, self.job.views, generator=generator)
        views = make_views(clean, self.job.views, self.job.loss, generator=generator)
        with autocast(self.precision, self.device):
            output = self.model(*views)
        losses = backbone_loss(output, clean, self.job.loss)
        self.accelerator.backward(losses.total)
        norm = nn.utils.clip_grad_norm_(self.backbone.parameters(), config.grad_clip)
        set_learning_rate(self.optimizer, one_cycle(step, config))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.recent.append(
            torch.cat((self._numbers(losses), norm.detach().double()[None]))
        )
        self.progress.step = step + 1
        self.progress.num_tokens += num_real_tokens(batch)
        self.progress.seconds += time.perf_counter() - began

    def _due_metrics(self) -> dict[str, float]:
        """Return the metrics that are due after this step."""
        step, config = self.progress.step, self.config
        last = step == config.num_steps
        values: dict[str, float] = {}
        if last or step % config.log_every == 0:
            values |= self._average_recent()
        if self.is_main and (last or step % config.evaluate_every == 0):
            values |= self.evaluate()
        return values

    def _average_recent(self) -> dict[str, float]:
        """Average over the recent steps and all processes, and begin anew."""
        recent = self._shared(self.progress.recent)
        assert recent is not None  # noqa: S101 - a step was done just now
        self._require_finite(recent)
        self.progress.recent = []
        names = [f"train/{name}" for name in (*LOSS_NAMES, "grad_norm")]
        values = dict(zip(names, recent.mean(dim=0).tolist(), strict=True))
        values["train/learning_rate"] = one_cycle(self.progress.step - 1, self.config)
        values["train/tokens_per_second"] = self.tokens_per_second
        return values

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

    def _numbers(self, losses: Losses) -> Tensor:
        return torch.stack([part.detach().double() for part in losses])

    def _is_stopping(self) -> bool:
        """Ask whether to stop; several processes agree on it where they synchronise anyway."""
        if self.accelerator.num_processes == 1:
            return self.stop()
        if self.progress.step % self.config.log_every:
            return False
        flag = torch.tensor(float(self.stop()), device=self.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())

    def _tell(self, values: dict[str, float]) -> None:
        if self.is_main:
            for observer in self.observers:
                observer.metrics(self.progress.step, values)
