"""Train a stack of models together, each with its own hyper-parameters and data. No I/O.

Every model's result is what it would be alone, to float tolerance: its data come from its own
random streams, its optimiser settings from its group, and nothing couples the models.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from ws_pipeline.zoo.architectures import build_module, inputs_of
from ws_pipeline.zoo.batches import (
    IGNORED_LABEL,
    Batch,
    LabelledBatches,
    make_batches,
    make_seed,
)
from ws_pipeline.zoo.contrastive import attach_projection
from ws_pipeline.zoo.datasets.dataset import Dataset, LabelledDataset
from ws_pipeline.zoo.dropout import DropoutMasks
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.heads import head_names
from ws_pipeline.zoo.objectives import Contrastive, Objective, Supervised
from ws_pipeline.zoo.stack import CPU, Stack, State, accuracies_of, losses_of

OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}

NUM_PROBE_ROWS = 2_048
"""Training rows to which the linear probes of contrastive models are fitted."""

Progress = Callable[[int], object]
"""Called with the number of model-epochs that were just done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model after some epoch.

    Args:
        metrics: accuracy and loss on the test set, val_accuracy, train_accuracy,
            generalization_gap.
        predictions: Predicted label at every labelled place of the test set, uint8.
    """

    epoch: int
    state: State
    metrics: Mapping[str, float]
    predictions: Tensor


@dataclass(kw_only=True, slots=True)
class TrainedModel:
    """What training one plan gave.

    Args:
        diverged_epoch: The epoch in which loss or weights stopped being finite; 0 for never. A
            diverged model has no checkpoint after that.
    """

    plan: ModelPlan
    checkpoints: list[Checkpoint] = field(default_factory=list)
    train_losses: list[float] = field(default_factory=list)
    val_accuracies: list[float] = field(default_factory=list)
    diverged_epoch: int = 0


def _group_of(plan: ModelPlan) -> tuple[Any, ...]:
    """Optimiser settings; models that share them share a leaf."""
    names = ("optimizer", "schedule", "learning_rate", "weight_decay", "momentum")
    return tuple(plan.factors[name] for name in names)


def make_optimizers(
    leaves: Sequence[Tensor], settings: Sequence[tuple[Any, ...]]
) -> list[torch.optim.Optimizer]:
    """Make torch's own optimisers, one parameter group per leaf."""
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in OPTIMIZERS}
    for leaf, (optimizer, schedule, rate, decay, momentum) in zip(leaves, settings, strict=True):
        group = {"params": [leaf], "lr": float(rate), "weight_decay": float(decay)}
        group |= {"initial_lr": float(rate), "schedule": schedule}
        if optimizer == "sgd":
            group["momentum"] = float(momentum)
        groups[optimizer].append(group)
    return [OPTIMIZERS[name](members) for name, members in groups.items() if members]


def _set_learning_rates(optimizers: Sequence[torch.optim.Optimizer], progress: float) -> None:
    """Follow each group's schedule; ``progress`` is the share of steps done."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if group["schedule"] == "cosine":
                group["lr"] = group["initial_lr"] * 0.5 * (1 + cos(pi * progress))


def _build_trainee(plan: ModelPlan, dataset: Dataset) -> nn.Module:
    """Build what is trained: the model, with a projection for a head under that objective."""
    seed = make_seed(plan.model_id, "initialisation")
    drawn = str(plan.factors["initialization"])
    module = build_module(plan.architecture, plan.sizes, dataset, seed=seed, initialization=drawn)
    if plan.factors["objective"] == "contrastive":
        return attach_projection(module, plan.architecture, seed)
    return module


def initial_state(plan: ModelPlan, dataset: Dataset, parent: State | None) -> State:
    """Start a model from its own initialisation, or from its parent's weights.

    With ``plan.new_head``, and where a projection is the head, the output layer is the model's own
    all the same.
    """
    module = _build_trainee(plan, dataset)
    own = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
    saved = module.state_dict()
    own |= {name: tensor.clone() for name, tensor in module.named_buffers() if name in saved}
    if parent is None:
        return own
    has_own_head = plan.new_head or plan.factors["objective"] == "contrastive"
    fresh = set(head_names(plan.architecture, list(own))) if has_own_head else set()
    return {name: own[name] if name in fresh else parent[name] for name in own}


def train_stack(
    plans: Sequence[ModelPlan],
    dataset: Dataset,
    *,
    parents: Mapping[str, State] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    progress: Progress = lambda _: None,
) -> list[TrainedModel]:
    """Train models of one architecture, shape, data set, objective, batch size and epochs.

    Args:
        plans: What to train. The order has no influence on any model.
        dataset: The data set of all of them.
        parents: Weights of the parents of fine-tunes, by the parent's model id.
        dtype: Precision of weights and arithmetic.
        device: Where they train; what is drawn for them does not depend on it.
        progress: Told after each epoch.

    Returns:
        One result per plan, in the order given.
    """
    ordered = sorted(plans, key=lambda plan: (repr(_group_of(plan)), plan.model_id))
    run = StackRun(ordered, dataset, parents or {}, dtype, device)
    for epoch in range(1, plans[0].num_epochs + 1):
        run.train_epoch(epoch)
        progress(len(plans))
    results = {model.plan.model_id: model for model in run.models}
    return [results[plan.model_id] for plan in plans]


def _labels_of(batches: Sequence[Batch]) -> Tensor:
    return torch.cat([batch.labels for batch in batches], dim=1)


class StackRun:
    """The state of one stack's training; made, it has its initial weights and random streams."""

    def __init__(
        self,
        plans: Sequence[ModelPlan],
        dataset: Dataset,
        parents: Mapping[str, State],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        first = plans[0]
        self.models = [TrainedModel(plan=plan) for plan in plans]
        self.batches = make_batches(dataset, plans, dtype)
        groups = [(key, len(list(members))) for key, members in groupby(plans, _group_of)]
        states = [
            initial_state(plan, dataset, parents[plan.parent.model_id] if plan.parent else None)
            for plan in plans
        ]
        module = _build_trainee(first, dataset)
        sizes = [size for _, size in groups]
        self.stack = Stack(first.architecture, module, states, sizes, dtype=dtype, device=device)
        self.optimizers = make_optimizers(self.stack.leaves, [key for key, _ in groups])
        self.val = self.batches.held_out("val")
        dropout = DropoutMasks(plans, module, self.val[0].inputs[0, :1].to(device))
        self.objective = self._make_objective(dropout, dataset)
        self.num_epochs = first.num_epochs
        self.test = self.batches.held_out("test")
        self.train_sample = self.batches.train_sample()
        if any(0 in plan.keep_epochs for plan in plans):
            self.objective.begin_evaluation()
            self._keep_checkpoints(0, self._evaluate(self.val)[0])

    def _make_objective(self, dropout: DropoutMasks, dataset: Dataset) -> Objective:
        plans = [model.plan for model in self.models]
        if plans[0].factors["objective"] == "supervised":
            are_images = inputs_of(dataset) == "images"
            return Supervised(self.stack, plans, dropout, are_images=are_images)
        assert isinstance(self.batches, LabelledBatches)  # noqa: S101  the projection saw to it
        assert isinstance(dataset, LabelledDataset)  # noqa: S101
        rows = self.batches.train_sample(NUM_PROBE_ROWS)
        return Contrastive(self.stack, plans, dropout, rows, dataset.num_labels)

    def train_epoch(self, epoch: int) -> None:
        """Do one epoch's steps, then look at the models."""
        total = torch.zeros(self.stack.num_models, device=self.stack.device)
        num_steps = self.batches.num_steps
        self.objective.begin_epoch(epoch)
        for step, batch in enumerate(self.batches.epoch(epoch)):
            done = (epoch - 1 + step / num_steps) / self.num_epochs
            _set_learning_rates(self.optimizers, done)
            losses = self.objective.losses(batch)
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call]
            for optimizer in self.optimizers:
                optimizer.step()
            total += losses.detach()
        self.objective.begin_evaluation()
        val_accuracies = self._evaluate(self.val)[0]
        self._record(epoch, total / num_steps, val_accuracies)
        if any(epoch in plan_epochs for plan_epochs in self._kept_epochs()):
            self._keep_checkpoints(epoch, val_accuracies)

    def _kept_epochs(self) -> list[tuple[int, ...]]:
        return [(*model.plan.keep_epochs, self.num_epochs) for model in self.models]

    def _record(self, epoch: int, losses: Tensor, val_accuracies: Tensor) -> None:
        finite = losses.isfinite() & self.stack.finite()
        for index, model in enumerate(self.models):
            if not finite[index] and not model.diverged_epoch:
                model.diverged_epoch = epoch
            if not model.diverged_epoch:
                model.train_losses.append(float(losses[index]))
                model.val_accuracies.append(float(val_accuracies[index]))

    def _evaluate(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            parts = [self.stack.forward(batch.inputs, training=False) for batch in batches]
            logits, labels = self.objective.logits(torch.cat(parts, dim=1)), _labels_of(batches)
            accuracies = accuracies_of(logits, labels)
            return accuracies, losses_of(logits, labels), logits.argmax(dim=-1).cpu()

    def _keep_checkpoints(self, epoch: int, val_accuracies: Tensor) -> None:
        test_accuracies, test_losses, predicted = self._evaluate(self.test)
        train_accuracies = self._evaluate(self.train_sample)[0]
        labelled = _labels_of(self.test)[0] != IGNORED_LABEL
        for index, (model, epochs) in enumerate(zip(self.models, self._kept_epochs(), strict=True)):
            if epoch not in epochs or model.diverged_epoch:
                continue
            accuracy, train = float(test_accuracies[index]), float(train_accuracies[index])
            metrics = {
                "accuracy": accuracy,
                "train_accuracy": train,
                "val_accuracy": float(val_accuracies[index]),
                "loss": float(test_losses[index]),
                "generalization_gap": train - accuracy,
            }
            model.checkpoints.append(
                Checkpoint(
                    epoch=epoch,
                    state=self.objective.publish(index, self.stack.state(index)),
                    metrics={name: round(value, 6) for name, value in metrics.items()},
                    predictions=predicted[index][labelled].to(torch.uint8),
                )
            )
