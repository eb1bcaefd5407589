"""What a stack of models learns by: labels, or views of the same image. Torch; no I/O.

An objective gives the losses of a batch, reads logits off what the models put out when they do not
train, and says which tensors are published.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ws_pipeline.zoo.batches import Batch
from ws_pipeline.zoo.contrastive import Views, contrastive_losses, fit_probes
from ws_pipeline.zoo.dropout import DropoutMasks
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.heads import HEAD_PREFIXES
from ws_pipeline.zoo.mixing import Mixing
from ws_pipeline.zoo.stack import Stack, State, losses_of


class Supervised:
    """Cross entropy with the labels, perhaps smoothed, perhaps of mixed images."""

    def __init__(
        self, stack: Stack, plans: Sequence[ModelPlan], dropout: DropoutMasks, *, are_images: bool
    ) -> None:
        self._stack = stack
        self._dropout = dropout
        self._mixing = Mixing(plans, are_images=are_images)
        smoothing = [float(plan.factors["label_smoothing"]) for plan in plans]
        dtype = stack.leaves[0].dtype
        self._smoothing = (
            torch.tensor(smoothing, dtype=dtype, device=stack.device) if any(smoothing) else None
        )

    def begin_epoch(self, epoch: int) -> None:
        """Open the random streams of an epoch."""
        self._dropout.begin_epoch(epoch)
        self._mixing.begin_epoch(epoch)

    def losses(self, batch: Batch) -> Tensor:
        """Return the cross entropy of each model ``(models,)``."""
        masks = self._dropout.draw(batch.inputs.shape[1])
        batch = Batch(inputs=self._mixing.erase(batch.inputs), labels=batch.labels)
        if not self._mixing.mixes:
            logits = self._stack.forward(batch.inputs, training=True, masks=masks)
            return losses_of(logits, batch.labels, self._smoothing)
        mixed = self._mixing.mix(batch)
        logits = self._stack.forward(mixed.inputs, training=True, masks=masks)
        first = losses_of(logits, mixed.labels, self._smoothing)
        second = losses_of(logits, mixed.other_labels, self._smoothing)
        shares = mixed.shares.to(first.device)
        return shares * first + (1 - shares) * second

    def begin_evaluation(self) -> None:
        """Do nothing: the models put out logits."""

    def logits(self, outputs: Tensor) -> Tensor:
        """Return them as they are."""
        return outputs

    def publish(self, index: int, state: State) -> State:  # noqa: ARG002
        """Return them as they are."""
        return state


class Contrastive:
    """NT-Xent between two views of every image; logits come from a linear probe.

    Args:
        probe_rows: Training rows, without augmentation, that the probes are fitted to.
    """

    def __init__(
        self,
        stack: Stack,
        plans: Sequence[ModelPlan],
        dropout: DropoutMasks,
        probe_rows: Sequence[Batch],
        num_labels: int,
    ) -> None:
        self._probe_rows = probe_rows
        self._stack = stack
        self._dropout = dropout
        self._views = Views(plans)
        self._mixing = Mixing(plans, are_images=True)
        self._num_labels = num_labels
        self._head = HEAD_PREFIXES[plans[0].architecture][-1]
        temperatures = [float(plan.factors["temperature"]) for plan in plans]
        self._temperatures = torch.tensor(
            temperatures, dtype=stack.leaves[0].dtype, device=stack.device
        )
        self._weights = self._biases = torch.empty(0)

    def begin_epoch(self, epoch: int) -> None:
        """Open the random streams of an epoch."""
        self._dropout.begin_epoch(epoch)
        self._views.begin_epoch(epoch)
        self._mixing.begin_epoch(epoch)

    def losses(self, batch: Batch) -> Tensor:
        """Return the NT-Xent of each model ``(models,)``."""
        views = self._mixing.erase(self._views.draw(batch.inputs))
        masks = self._dropout.draw(views.shape[1])
        projections = self._stack.forward(views, training=True, masks=masks)
        return contrastive_losses(projections, self._temperatures)

    def begin_evaluation(self) -> None:
        """Fit the probes to the features of training rows."""
        with torch.no_grad():
            parts = [self._stack.forward(rows.inputs, training=False) for rows in self._probe_rows]
        labels = torch.cat([rows.labels for rows in self._probe_rows], dim=1)
        features = torch.cat(parts, dim=1)
        self._weights, self._biases = fit_probes(
            features, labels.to(features.device), self._num_labels
        )

    def logits(self, outputs: Tensor) -> Tensor:
        """Read the probes off features."""
        return outputs @ self._weights.mT + self._biases[:, None]

    def publish(self, index: int, state: State) -> State:
        """Put the probe in the projection's place."""
        kept = {name: tensor for name, tensor in state.items() if not name.startswith(self._head)}
        weight, bias = self._weights[index].clone().cpu(), self._biases[index].clone().cpu()
        return kept | {f"{self._head}weight": weight, f"{self._head}bias": bias}


Objective = Supervised | Contrastive
