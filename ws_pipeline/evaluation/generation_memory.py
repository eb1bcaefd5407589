"""Is a generated model new, or a training model again? Distances in weights and in errors. No I/O.

Source of the question: Zeng et al., "Generative Modeling of Weights: Generalization or
Memorization?", arXiv 2506.07998, which found that published generators mostly return copies, and
compares weights and the overlap of errors. Ours: both are also given for a training model against
the others, which is what independent models score.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ws_pipeline.generation.template import Weights
from ws_pipeline.zoo.weights import flatten_weights


def weight_distance(weights: Weights, others: Sequence[Weights]) -> float:
    """Return the L2 distance to the nearest model, in units of that model's norm."""
    own = flatten_weights(_without_statistics(weights))
    distances = []
    for other in others:
        vector = flatten_weights(_without_statistics(other))
        distances.append(
            float(np.linalg.norm(own - vector)) / max(float(np.linalg.norm(vector)), 1e-30)
        )
    return float(min(distances))


def error_overlap(
    predictions: torch.Tensor, others: Sequence[torch.Tensor], labels: torch.Tensor
) -> float:
    """Return the largest share of errors that a model has in common with another one.

    Of the places where either is wrong, those where both are, in the same way; 1 where neither is.
    """
    return max(_overlap(predictions, other, labels) for other in others)


def _overlap(one: torch.Tensor, other: torch.Tensor, labels: torch.Tensor) -> float:
    either = (one != labels) | (other != labels)
    same = either & (one == other)
    return float(same.sum() / either.sum()) if bool(either.any()) else 1.0


def _without_statistics(weights: Weights) -> Weights:
    """Leave out running statistics, which are no weights and may outweigh them all."""
    return {
        name: array
        for name, array in weights.items()
        if not name.endswith(("running_mean", "running_var"))
    }
