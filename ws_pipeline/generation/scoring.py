"""How good weights are on a data set, and BatchNorm statistics that belong to them. Torch; no I/O.

A generated network has no running statistics: those that it was given belong to another one. They
are estimated anew from training inputs in train mode as a plain average over batches (momentum
None), as ``zoo.interpolation`` does for the models between two models. In eval mode, as released
samplers have it, nothing is estimated. METHOD 5 gives it 10 to 60 % of accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ws_pipeline.generation.template import Weights
from ws_pipeline.zoo.architectures import build_module, published_names, run_module
from ws_pipeline.zoo.batches import IGNORED_LABEL, Batch, make_batches
from ws_pipeline.zoo.config import TRAINING_FACTORS
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.interpolation import reestimate_norms
from ws_pipeline.zoo.stack import State, accuracies_of, losses_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredModel:
    """Weights with the running statistics that belong to them, and what they score on validation.

    A network that computes NaN scores an accuracy as any other and an infinite loss.
    """

    weights: Weights
    loss: float
    accuracy: float


class Scorer:
    """Scores weights of one shape on one data set.

    Args:
        plan: Any model of the shape; its architecture, sizes, batch size and eval_rows count.
        dataset: What it shall do.
    """

    def __init__(self, plan: ModelPlan, dataset: Dataset) -> None:
        clean = replace(plan, model_id=f"scorer/{dataset.name}", factors=dict(TRAINING_FACTORS))
        batches = make_batches(dataset, [clean], torch.float32)
        self._architecture = plan.architecture
        self._module = build_module(plan.architecture, plan.sizes, dataset, seed=0).eval()
        self._names = published_names(self._module)
        self._train = batches.train_sample()
        self._val = batches.held_out("val")
        self._test = batches.held_out("test")

    def score(self, weights: Weights) -> ScoredModel:
        """Estimate running statistics from training inputs, then score on the validation split."""
        self._load(weights)
        with torch.no_grad():
            reestimate_norms(self._module, lambda: [self._run(b.inputs[0]) for b in self._train])
            logits = self._logits(self._val)
            labels = torch.cat([batch.labels for batch in self._val], dim=1)
            loss = float(losses_of(logits[None], labels)[0])
            accuracy = float(accuracies_of(logits[None], labels)[0])
        return ScoredModel(
            weights={**weights, **self._statistics()},
            loss=loss if np.isfinite(loss) else float("inf"),
            accuracy=accuracy,
        )

    def predict(self, weights: Weights) -> torch.Tensor:
        """Return the predicted label at every labelled place of the test split."""
        self._load(weights)
        labels = torch.cat([batch.labels for batch in self._test], dim=1)[0]
        with torch.no_grad():
            return self._logits(self._test).argmax(dim=-1)[labels != IGNORED_LABEL]

    def test_labels(self) -> torch.Tensor:
        """Return the labels that predictions are held against."""
        labels = torch.cat([batch.labels for batch in self._test], dim=1)[0]
        return labels[labels != IGNORED_LABEL]

    def to_state(self, weights: Weights) -> State:
        """Return weights under the module's own names, as ``zoo.training`` starts from them."""
        return {own: _to_tensor(weights[name]) for own, name in self._names.items()}

    def _load(self, weights: Weights) -> None:
        # Tied tensors and buffers that are not saved have no name of their own.
        self._module.load_state_dict(self.to_state(weights), strict=False)

    def _run(self, inputs: Tensor) -> Tensor:
        return run_module(self._architecture, self._module, inputs)

    def _logits(self, batches: Sequence[Batch]) -> Tensor:
        return torch.cat([self._run(batch.inputs[0]) for batch in batches])

    def _statistics(self) -> Mapping[str, Any]:
        """Copy out what the re-estimation set."""
        found = {}
        for prefix, part in self._module.named_modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                for name, buffer in part.named_buffers():
                    found[self._names[f"{prefix}.{name}"]] = buffer.numpy().copy()
        return found


def _to_tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape).clone()
