"""Tokens on one scale, and what that takes away: mean and standard deviation. No I/O.

What it is: the five granularities of METHOD 2 over one batch of windows. What it is not: statistics
of a layer, which come with the batch (``tokens.windows``). The scale that is removed is kept beside
the tokens, so :func:`denormalize` is the inverse to float32.

Source: masked loss normalisation, arXiv 2504.10141 and 2510.02096, is `batch`; `layer` is ours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ws_pipeline.backbone.config import Normalization

MIN_STD = 1e-10
"""A layer or token of equal weights is divided by this instead of zero; its tokens become zeros."""

MIN_LOG_STD = -20.0
"""Log of about 2e-9: the log std of a constant layer, kept finite."""


MAX_RATIO = 1e4
"""Of mean to std; 56 is the largest among the matrices of the populations seen so far."""

TYPICAL_LOG_STD, SPREAD_LOG_STD = -1.0, 3.0
"""Of 3,592 weight matrices of 44 families from public packages, 1 % to 99 % lie in -4.0 to 4.2."""


class ScaledTokens(NamedTuple):
    """Normalised tokens with the scale that was taken out.

    Attributes:
        tokens: ``(batch, window, token_size)``, zero where padded.
        mean: ``(batch, window, 1)``.
        std: ``(batch, window, 1)``, at least `MIN_STD`.
    """

    tokens: Tensor
    mean: Tensor
    std: Tensor

    def features(self) -> Tensor:
        """Return the scale as two numbers of order one: (mean / std, log std), ``(..., 2)``.

        The log std is shifted and divided by constants; the ratio is squashed to (-1, 1), since
        norm scales have means of many standard deviations.
        """
        log_std = self.std.log().clamp(min=MIN_LOG_STD)
        centred = (log_std - TYPICAL_LOG_STD) / SPREAD_LOG_STD
        return torch.cat((squash(self.mean / self.std), centred), dim=-1)


def squash(ratio: Tensor) -> Tensor:
    """Map any ratio into (-1, 1), the identity near zero; unlike tanh it still tells 5 from 50."""
    return ratio / (1.0 + ratio.abs())


def scale_from_features(features: Tensor) -> tuple[Tensor, Tensor]:
    """Undo :meth:`ScaledTokens.features`: mean and std, each ``(..., 1)``.

    Features that a decoder made up may lie outside of what they can be; the ratio is kept below
    `MAX_RATIO` then.
    """
    limit = MAX_RATIO / (1.0 + MAX_RATIO)
    squashed = features[..., :1].clamp(-limit, limit)
    std = (features[..., 1:] * SPREAD_LOG_STD + TYPICAL_LOG_STD).exp()
    return squashed / (1.0 - squashed.abs()) * std, std


def normalize(
    tokens: Tensor, mask: Tensor, scale: Tensor, granularity: Normalization
) -> ScaledTokens:
    """Normalise true weights.

    Args:
        tokens: ``(batch, window, token_size)`` float32, zero where padded.
        mask: ``(batch, window, token_size)`` bool, real weights.
        scale: ``(batch, window, 2)``, (mean, log std) of each token's layer.
        granularity: Over what mean and std are taken. `layer` takes them from `scale`.
    """
    mean, std = _statistics(tokens, mask, scale, granularity)
    std = std.clamp(min=MIN_STD)
    return ScaledTokens(((tokens - mean) / std).masked_fill(~mask, 0.0), mean, std)


def denormalize(scaled: ScaledTokens, mask: Tensor) -> Tensor:
    """Undo :func:`normalize`; zero where padded."""
    return (scaled.tokens * scaled.std + scaled.mean).masked_fill(~mask, 0.0)


def _statistics(
    tokens: Tensor, mask: Tensor, scale: Tensor, granularity: Normalization
) -> tuple[Tensor, Tensor]:
    """Return mean and std, each ``(batch, window, 1)``."""
    if granularity == "layer":
        return scale[..., :1], scale[..., 1:].exp()
    if granularity == "none":
        zero = torch.zeros_like(scale[..., :1])
        return zero, zero + 1.0
    dims = {"token": (2,), "window": (1, 2), "batch": (0, 1, 2)}[granularity]
    count = mask.sum(dim=dims, keepdim=True).clamp(min=1)
    real = tokens.masked_fill(~mask, 0.0)
    mean = real.sum(dim=dims, keepdim=True) / count
    centred = (tokens - mean).masked_fill(~mask, 0.0)
    std = (centred.square().sum(dim=dims, keepdim=True) / count).sqrt()
    shape = (*tokens.shape[:2], 1)
    return mean.expand(shape), std.expand(shape)
