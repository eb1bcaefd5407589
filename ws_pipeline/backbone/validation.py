"""Losses on held-out windows while training goes on, and when it is not worth going on. No I/O.

Every process takes its share of the windows and all get the same numbers, so that all decide alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from ws_pipeline.backbone.batches import Batch, to_windows
from ws_pipeline.backbone.config import LossConfig, Precision
from ws_pipeline.backbone.devices import autocast
from ws_pipeline.backbone.loss import reconstruction_errors, scale_errors
from ws_pipeline.backbone.model import Backbone

RECONSTRUCTION = "val/loss_reconstruction"
SCALE = "val/loss_scale"


@dataclass(kw_only=True, slots=True)
class Patience:
    """How long the validation loss has not become better; mutable.

    Attributes:
        limit: Evaluations after which it has run out; 0 for never.
        best: Lowest loss so far; None before the first.
        num_worse: Evaluations since then.
    """

    limit: int
    best: float | None = None
    num_worse: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the training should end."""
        return 0 < self.limit <= self.num_worse

    def see(self, loss: float) -> None:
        """Take the loss of an evaluation."""
        if self.best is None or loss < self.best:
            self.best, self.num_worse = loss, 0
        else:
            self.num_worse += 1


@torch.no_grad()
def evaluate_windows(
    backbone: Backbone,
    batches: Sequence[Batch],
    loss: LossConfig,
    *,
    accelerator: Accelerator,
    precision: Precision,
) -> dict[str, float]:
    """Return the losses on clean windows of all processes; nothing without any.

    Args:
        backbone: Sharded or whole; left in training mode.
        batches: This process's share; as many on every process.
        loss: Its units.
        accelerator: The processes.
        precision: Of matrix products.
    """
    if not batches:
        return {}
    device = accelerator.device
    backbone.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    for batch in batches:
        clean = to_windows(batch, device)
        with autocast(precision, device):
            output = backbone(*clean)
        wrong = reconstruction_errors(output.prediction, clean, loss, over=backbone.over)
        errors = (wrong, clean.mask.sum())
        scale = (scale_errors(output, clean), clean.mask.any(dim=-1).sum())
        sums += torch.stack([part.double() for part in (*errors, *scale)])
    backbone.train()
    every = accelerator.reduce(sums, reduction="sum").tolist()
    return {RECONSTRUCTION: every[0] / max(every[1], 1.0), SCALE: every[2] / max(every[3], 1.0)}
