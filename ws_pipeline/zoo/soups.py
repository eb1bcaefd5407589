"""Model soups: averages of weights that score better than their members. No I/O, no torch.

Sources: uniform and greedy soups of fine-tunes of one parent, https://arxiv.org/abs/2203.05482,
recipe 1; averages over the last epochs of one training, https://arxiv.org/abs/2209.14981. How a
soup is scored is the caller's (``interpolation.Evaluator``); it must be on data that the soup is
not reported on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ws_pipeline.zoo.weights import Weights, average_weights

ScoreOf = Callable[[Weights], float]
"""Accuracy, or anything else of which more is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Soup:
    """An average of models.

    Attributes:
        members: Which models are in it, in the order in which they were taken.
        score: Of the soup, on the data that chose its members.
    """

    weights: Weights
    members: tuple[int, ...]
    score: float


def make_uniform_soup(models: Sequence[Weights], score_of: ScoreOf) -> Soup:
    """Average all models."""
    weights = average_weights(models)
    return Soup(weights=weights, members=tuple(range(len(models))), score=score_of(weights))


def make_greedy_soup(models: Sequence[Weights], score_of: ScoreOf) -> Soup:
    """Take models in from the best down, each only if the average does not get worse by it."""
    scores = [score_of(model) for model in models]
    ranked = sorted(range(len(models)), key=lambda index: (-scores[index], index))
    members, best = [ranked[0]], scores[ranked[0]]
    weights = models[ranked[0]]
    for index in ranked[1:]:
        candidate = average_weights([models[member] for member in [*members, index]])
        score = score_of(candidate)
        if score >= best:
            members, best, weights = [*members, index], score, candidate
    return Soup(weights=weights, members=tuple(members), score=best)


def average_epochs(checkpoints: Sequence[Weights], *, last: int) -> Weights:
    """Average the last checkpoints of one training, given in the order of their epochs."""
    return average_weights(checkpoints[-last:])
