"""What lies between two models: loss and accuracy along the straight line of weights. Reads repos.

The barrier is how far the loss on the way rises above the straight line between the losses at the
ends. Sources: linear mode connectivity, https://arxiv.org/abs/1912.05671, section 2; with the
second model aligned first, git re-basin, https://arxiv.org/abs/2209.04836, section 2. On the way
BatchNorm's running statistics belong to no network, so they are estimated anew from training
inputs (https://arxiv.org/abs/2211.08403). Classifiers only; torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ws_pipeline.weights.symmetry.alignment import align_model
from ws_pipeline.weights.symmetry.groups import Symmetry
from ws_pipeline.weights.symmetry.permutation import permute_state
from ws_pipeline.zoo.architectures import load_model, published_names, run_module
from ws_pipeline.zoo.batches import scale_inputs
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.weights import Weights, average_weights, read_arrays, read_symmetry

Score = tuple[float, float]
"""Loss (mean cross entropy) and accuracy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpolation:
    """Scores on the way from one model (share 0) to another (share 1).

    Attributes:
        distance: L2 between the ends' weights, running statistics not counted.
    """

    shares: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    distance: float

    @property
    def barrier(self) -> float:
        """Largest rise of the loss above the line between the ends, at least 0."""
        line = np.interp(self.shares, [0.0, 1.0], [self.losses[0], self.losses[-1]])
        return float(np.max(np.array(self.losses) - line))

    @property
    def accuracy_drop(self) -> float:
        """Largest drop of the accuracy below the line between the ends, at least 0."""
        line = np.interp(self.shares, [0.0, 1.0], [self.accuracies[0], self.accuracies[-1]])
        return float(np.max(line - np.array(self.accuracies)))


class Evaluator:
    """Scores weights of one repo's shape on a data set.

    Args:
        repo: Any repo of the shape, for its config.
        architecture: Name of its architecture.
        dataset: Labelled; its training inputs re-estimate running statistics.
        split: Whose inputs are scored.
    """

    def __init__(
        self, repo: Path, architecture: str, dataset: LabelledDataset, *, split: str = "test"
    ) -> None:
        self.architecture = architecture
        self.module = load_model(repo)
        self._own = {name: own for own, name in published_names(self.module).items()}
        inputs = torch.from_numpy(getattr(dataset, f"{split}_inputs"))
        self._inputs = scale_inputs(inputs, torch.float32)
        self._labels = torch.from_numpy(getattr(dataset, f"{split}_labels"))
        self._train_inputs = scale_inputs(torch.from_numpy(dataset.train_inputs), torch.float32)

    @torch.no_grad()
    def score(self, weights: Weights, *, reestimate: bool = False) -> Score:
        """Return loss and accuracy; ``reestimate`` BatchNorm's statistics first."""
        tensors = {
            own: torch.from_numpy(np.ascontiguousarray(weights[name]))
            for name, own in self._own.items()
        }
        # Tied tensors and what is not saved have no name of their own.
        self.module.load_state_dict(tensors, strict=False)
        if reestimate:
            reestimate_norms(self.module, lambda: self._run(self._train_inputs))
        logits = self._run(self._inputs)
        loss = functional.cross_entropy(logits, self._labels)
        return float(loss), float((logits.argmax(dim=-1) == self._labels).double().mean())

    def _run(self, inputs: Tensor) -> Tensor:
        return run_module(self.architecture, self.module, inputs)


def interpolate_models(
    one: Path,
    other: Path,
    evaluator: Evaluator,
    *,
    align: bool = False,
    num_points: int = 11,
    seed: int = 0,
) -> Interpolation:
    """Score the models between two repos.

    Args:
        one: Where the way begins.
        other: Where it ends; of the same shape.
        evaluator: For that shape.
        align: Whether to bring the other model close to the first by permutation.
        num_points: On the way, ends included.
        seed: Of the alignment's order.
    """
    first, last = read_arrays(one), read_arrays(other)
    symmetry = read_symmetry(one, first) if align else Symmetry()
    found = align_model(first, last, symmetry, generator=np.random.default_rng(seed))
    last = permute_state(last, found.permutation)
    shares = np.linspace(0.0, 1.0, num_points)
    scores = [
        evaluator.score(
            average_weights([first, last], [1.0 - share, share]), reestimate=0.0 < share < 1.0
        )
        for share in shares.tolist()
    ]
    return Interpolation(
        shares=tuple(shares.tolist()),
        losses=tuple(loss for loss, _ in scores),
        accuracies=tuple(accuracy for _, accuracy in scores),
        distance=found.distance_after,
    )


def reestimate_norms(module: nn.Module, run: Callable[[], object]) -> None:
    """Set the running statistics of every BatchNorm to those of one pass over ``run``'s inputs."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over passes
        norm.train()
    run()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
