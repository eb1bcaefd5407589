"""One optimiser step: views, forward, losses, backward, clipping, AdamW. Collectives; no other I/O.

What it is: a pure function of (weights, optimiser state, windows, step), shared by the processes of
a training. What it is not: where windows come from and what is logged (``loop``).
"""

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ws_pipeline.backbone.config import Precision
from ws_pipeline.backbone.devices import autocast
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loss import Counts, Losses, Windows, backbone_loss, split_windows
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.optimizer import learning_rate, set_learning_rate
from ws_pipeline.backbone.parallel import all_processes, sum_later, whole
from ws_pipeline.backbone.view_draws import draw_views
from ws_pipeline.backbone.views import Views, augment_windows, make_views

LOSS_NAMES = ("loss", "loss_reconstruction", "loss_contrastive", "loss_scale")
"""Of the fields of :class:`Losses`, as they are logged."""


class OptimizerStep:
    """Takes steps; the same on every process but for its share of the windows.

    Args:
        job: What to train.
        accelerator: Where, and with how many others.
        model: What is called: the backbone, or DDP around it.
        backbone: Whose weights are trained; its batches are those of all processes from now on.
        optimizer: Of its weights.
        precision: Of matrix products.
    """

    def __init__(
        self,
        job: TrainJob,
        *,
        accelerator: Accelerator,
        model: nn.Module,
        backbone: Backbone,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
    ) -> None:
        self.job = job
        self.accelerator = accelerator
        self.model = model
        self.backbone = backbone
        self.optimizer = optimizer
        self.precision = precision
        self.num_views = 2 if job.loss.contrastive_weight > 0.0 else 1
        backbone.over = all_processes()

    def take(self, clean: Windows, step: int) -> Tensor:
        """Do a step on this process's share of its windows.

        Returns:
            `LOSS_NAMES` and the gradient's norm, float64 ``(5,)`` on the device.
        """
        config = self.job.training
        views = self._make_views(clean, step)
        counts = self._count(views.targets)
        parts = config.accumulation
        pairs = zip(*(split_windows(each, parts, self.num_views) for each in views), strict=True)
        losses = [
            self._accumulate(Views(*pair), counts, last=index == parts - 1)
            for index, pair in enumerate(pairs)
        ]
        norm = nn.utils.clip_grad_norm_(self.backbone.parameters(), config.grad_clip)
        set_learning_rate(self.optimizer, learning_rate(step, config))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.cat((torch.stack(losses).sum(dim=0), whole(norm).double()[None]))

    def _make_views(self, clean: Windows, step: int) -> Views:
        job, share = self.job, self.job.training.batch_size // self.accelerator.num_processes
        first = step * job.training.batch_size + self.accelerator.process_index * share
        draws = draw_views(job.training.seed, first, share)
        return make_views(augment_windows(clean, job.views, draws), job.views, job.loss, draws)

    def _accumulate(self, views: Views, counts: Counts, *, last: bool) -> Tensor:
        """Add the gradient of one part of a step; returns its losses as one row."""
        with sum_later(self.model, last=last):
            with autocast(self.precision, self.accelerator.device):
                output = self.model(*views.inputs)
            losses = backbone_loss(output, views.targets, self.job.loss, counts=counts)
            self.accelerator.backward(losses.total)
        return _numbers(losses)

    def _count(self, targets: Windows) -> Counts:
        """Count the step's real weights and tokens over all processes."""
        own = Counts.of(targets)
        both = torch.stack([own.num_weights, own.num_tokens]).double()
        if self.accelerator.num_processes > 1:
            both = self.accelerator.reduce(both, reduction="mean")
        parts = self.job.training.accumulation
        return Counts(both[0].float(), both[1].float(), parts, self.backbone.over)


def _numbers(losses: Losses) -> Tensor:
    return torch.stack([part.detach().double() for part in losses])
