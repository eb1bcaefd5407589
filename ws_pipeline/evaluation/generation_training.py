"""Training from many starts side by side, and what it is measured by. Torch; no I/O.

All starts of a case train as one stack (``zoo.training``), each on its own order of the same data,
with the same optimiser and budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ws_pipeline.evaluation.generation_config import STEPS_PER_LOOK, GenerationConfig
from ws_pipeline.evaluation.generation_starts import SCRATCH, Start
from ws_pipeline.generation.scoring import Scorer
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.stack import State
from ws_pipeline.zoo.training import TrainedModel, train_stack
from ws_pipeline.zoo.workers import MAX_STACK_MODELS


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One start under training.

    Attributes:
        accuracies: On the test split, by step; a diverged model keeps its last ones.
        losses: Likewise.
        val_accuracies: At every look: after 0, 10, 20, ... steps.
        predictions: On the test split, before any step.
    """

    start: Start
    accuracies: Mapping[int, float]
    losses: Mapping[int, float]
    val_accuracies: tuple[float, ...]
    predictions: torch.Tensor

    def steps_to(self, accuracy: float) -> int:
        """Return the steps until validation first reaches an accuracy; the budget if never."""
        for look, reached in enumerate(self.val_accuracies):
            if reached >= accuracy:
                return look * STEPS_PER_LOOK
        return (len(self.val_accuracies) - 1) * STEPS_PER_LOOK


def train_starts(
    starts: Sequence[Start],
    scorer: Scorer,
    plan: ModelPlan,
    dataset: Dataset,
    config: GenerationConfig,
) -> tuple[list[Trajectory], float]:
    """Train all starts with the learning rate that is best for scratch.

    Returns:
        Their trajectories in order, and the rate.
    """
    scratch = [start for start in starts if start.method == SCRATCH]
    tried = {rate: _train(scratch, scorer, plan, dataset, rate) for rate in config.learning_rates}
    best = max(tried, key=lambda rate: np.mean([each.val_accuracies[-1] for each in tried[rate]]))
    others = [start for start in starts if start.method != SCRATCH]
    trained = [*tried[best], *_train(others, scorer, plan, dataset, best)]
    found = {(each.start.method, each.start.seed): each for each in trained}
    return [found[start.method, start.seed] for start in starts], best


def _train(
    starts: Sequence[Start], scorer: Scorer, plan: ModelPlan, dataset: Dataset, rate: float
) -> list[Trajectory]:
    """Train starts with one learning rate, in stacks."""
    plans, states = [], {}
    for start in starts:
        states_key = f"start/{start.method}/{start.seed}"
        parent = replace(plan, model_id=states_key, name=start.method)
        plans.append(
            replace(
                plan,
                model_id=f"{plan.model_id}/{start.method}/{start.seed}",
                factors={**plan.factors, "learning_rate": rate},
                parent=parent,
            )
        )
        states[states_key] = _to_state(scorer, start)
    trained: list[TrainedModel] = []
    for first in range(0, len(plans), MAX_STACK_MODELS):
        part = plans[first : first + MAX_STACK_MODELS]
        trained += train_stack(part, dataset, parents=states)
    return [
        _to_trajectory(start, model, plan.num_epochs)
        for start, model in zip(starts, trained, strict=True)
    ]


def _to_state(scorer: Scorer, start: Start) -> State:
    return scorer.to_state(start.model.weights)


def _to_trajectory(start: Start, model: TrainedModel, num_looks: int) -> Trajectory:
    checkpoints = {each.epoch: each for each in model.checkpoints}
    first = checkpoints[0]
    looks = [first.metrics["val_accuracy"], *model.val_accuracies]
    looks += [looks[-1]] * (num_looks + 1 - len(looks))
    steps = sorted({*model.plan.keep_epochs, num_looks})
    last, accuracies, losses = first, {}, {}
    for epoch in steps:
        last = checkpoints.get(epoch, last)
        accuracies[epoch * STEPS_PER_LOOK] = last.metrics["accuracy"]
        losses[epoch * STEPS_PER_LOOK] = last.metrics["loss"]
    return Trajectory(
        start=start,
        accuracies=accuracies,
        losses=losses,
        val_accuracies=tuple(looks),
        predictions=first.predictions,
    )
