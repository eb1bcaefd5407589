"""Tokens on one scale, and what that takes away: mean and standard deviation. No I/O.

What it is: the five granularities of METHOD 2 over one batch of windows. What it is not: statistics
of a layer, which come with the batch (``tokens.windows``). The scale that is removed is kept beside
the tokens, so :func:`denormalize` is the inverse to float32: a weight comes back to a few units in
the last place of the largest of those it was normalised with.

Outliers: the scale is the standard deviation, never a quantile range, so that no normalised weight
of n exceeds sqrt(n), and nothing is clipped, since that has no inverse. Of 3,563 layers of public
packages the largest weight lies 4.5 deviations out (median; 99 %: 21, most: 143), while the
quartile range of sparse layers is 35 orders of magnitude below their deviation. Sums are taken in
units of the group's largest weight: what float32 can hold neither overflows nor vanishes. NaN and
infinity are refused where a model comes in (``weights.layers``), and by :func:`require_finite`.

Source: masked loss normalisation, arXiv 2504.10141 and 2510.02096, is `batch`; `layer` is ours.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ws_pipeline.backbone.config import Normalization
from ws_pipeline.errors import Reason, WeightsError

MIN_STD = 1e-10
"""A layer or token of equal weights is divided by this instead of zero; its tokens become zeros."""

MAX_STD = 1e38
"""Close to what float32 can hold; a float64 layer may be wider."""

MIN_LOG_STD = -20.0
"""Log of about 2e-9: the log std of a constant layer of zeros, kept finite."""

MAX_RATIO = 1e4
"""Of mean to std in the features; 1,386 is the largest of a layer that is not constant. Beyond it
the spread is raised, so that a constant layer, a fresh norm of ones, keeps its value."""

TYPICAL_LOG_STD, SPREAD_LOG_STD = -1.0, 3.0
"""Of 3,592 weight matrices of 44 families from public packages, 1 % to 99 % lie in -4.0 to 4.2."""


class Reduction(NamedTuple):
    """How statistics of a part of a batch become those of all of it.

    Attributes:
        total: Sums a tensor over the parts.
        largest: Takes its largest value over the parts.
    """

    total: Callable[[Tensor], Tensor]
    largest: Callable[[Tensor], Tensor]


LOCAL = Reduction(lambda part: part, lambda part: part)
"""Of a batch that is all in one place."""


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
        std = torch.maximum(self.std, self.mean.abs() / MAX_RATIO)
        log_std = std.log().clamp(min=MIN_LOG_STD)
        centred = (log_std - TYPICAL_LOG_STD) / SPREAD_LOG_STD
        return torch.cat((squash(self.mean / std), centred), dim=-1)


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
    tokens: Tensor,
    mask: Tensor,
    scale: Tensor,
    granularity: Normalization,
    over: Reduction = LOCAL,
) -> ScaledTokens:
    """Normalise true weights.

    Args:
        tokens: ``(batch, window, token_size)`` float32, zero where padded.
        mask: ``(batch, window, token_size)`` bool, real weights.
        scale: ``(batch, window, 2)``, (mean, log std) of each token's layer.
        granularity: Over what mean and std are taken. `layer` takes them from `scale`.
        over: Of the batch whose part this is; only `batch` looks at it.
    """
    mean, std = _statistics(tokens, mask, scale, granularity, over)
    std = std.clamp(MIN_STD, MAX_STD)
    return ScaledTokens(((tokens - mean) / std).masked_fill(~mask, 0.0), mean, std)


def denormalize(scaled: ScaledTokens, mask: Tensor) -> Tensor:
    """Undo :func:`normalize`; zero where padded."""
    return (scaled.tokens * scaled.std + scaled.mean).masked_fill(~mask, 0.0)


def _statistics(
    tokens: Tensor,
    mask: Tensor,
    scale: Tensor,
    granularity: Normalization,
    over: Reduction,
) -> tuple[Tensor, Tensor]:
    """Return mean and std, each ``(batch, window, 1)``."""
    if granularity == "layer":
        return scale[..., :1], scale[..., 1:].exp()
    if granularity == "none":
        zero = torch.zeros_like(scale[..., :1])
        return zero, zero + 1.0
    dims = {"token": (2,), "window": (1, 2), "batch": (0, 1, 2)}[granularity]
    total, largest = over if granularity == "batch" else LOCAL
    count = total(mask.sum(dim=dims, keepdim=True)).clamp(min=1)
    real = tokens.masked_fill(~mask, 0.0)
    unit = _power_below(largest(real.abs().amax(dim=dims, keepdim=True)))
    real = real / unit
    mean = total(real.sum(dim=dims, keepdim=True)) / count
    centred = (real - mean).masked_fill(~mask, 0.0)
    std = (total(centred.square().sum(dim=dims, keepdim=True)) / count).sqrt()
    shape = (*tokens.shape[:2], 1)
    return (mean * unit).expand(shape), (std * unit).expand(shape)


def _power_below(values: Tensor) -> Tensor:
    """Return the power of two at or near below each value; dividing by it changes no digit."""
    return values.clamp(min=torch.finfo(values.dtype).tiny).log2().floor().exp2()


def require_finite(tokens: Tensor, mask: Tensor) -> None:
    """Refuse windows that hold NaN or infinity. Waits for the device: not for the inner loop.

    Raises:
        WeightsError: ``non_finite_weights``.
    """
    num_bad = int((~tokens.isfinite() & mask).sum())
    if num_bad:
        raise WeightsError(
            f"Weights must be finite float32 numbers, {num_bad} of {int(mask.sum())} are not; "
            "leave the model out.",
            reason=Reason.NON_FINITE_WEIGHTS,
        )
