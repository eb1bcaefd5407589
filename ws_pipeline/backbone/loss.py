"""What a training minimises: masked reconstruction, NT-Xent, scale. No I/O.

Source: METHOD 4. SANE (arXiv 2406.09997) for the sum, masked loss normalisation (arXiv 2504.10141)
for the units, SimCLR (arXiv 2002.05709, equation 1) for NT-Xent. Ours: the target is the clean
input (the released code reconstructs the noise too), and the scale is a target of its own.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ws_pipeline.backbone.config import LossConfig
from ws_pipeline.backbone.model import BackboneOutput
from ws_pipeline.backbone.normalization import ScaledTokens, normalize


class Windows(NamedTuple):
    """One batch of clean windows as tensors; made by ``expansion``.

    Attributes:
        tokens: ``(batch, window, token_size)`` float32 true weights.
        mask: ``(batch, window, token_size)`` bool.
        positions: ``(batch, window, 3)`` int64.
        scale: ``(batch, window, 2)`` float32, (mean, log std) of the layer.
    """

    tokens: Tensor
    mask: Tensor
    positions: Tensor
    scale: Tensor


class Losses(NamedTuple):
    """The sum and its parts, scalars; a part that is switched off is zero."""

    total: Tensor
    reconstruction: Tensor
    contrastive: Tensor
    scale: Tensor


def backbone_loss(output: BackboneOutput, clean: Windows, config: LossConfig) -> Losses:
    """Combine the losses of one batch.

    Args:
        output: Of one or two views of the windows, one view after the other along the batch axis;
            with two, the contrastive term pairs them.
        clean: The windows that the views were made from.
        config: Weights of the terms.
    """
    batch = clean.tokens.shape[0]
    num_views = output.latents.shape[0] // batch
    targets = Windows(*(torch.cat([part] * num_views) for part in clean))
    contrastive = clean.tokens.new_zeros(())
    if num_views == 2 and config.contrastive_weight > 0.0 and output.projection is not None:
        first, second = output.projection[:batch], output.projection[batch:]
        contrastive = nt_xent_loss(first, second, temperature=config.temperature)
    reconstruction = reconstruction_loss(output.prediction, targets, config)
    scale = scale_loss(output, targets)
    weight = config.contrastive_weight
    total = (1.0 - weight) * reconstruction + weight * contrastive + config.scale_weight * scale
    return Losses(total, reconstruction, contrastive, scale)


def reconstruction_loss(prediction: ScaledTokens, clean: Windows, config: LossConfig) -> Tensor:
    """Mean squared error over real weights, in units of `config.normalization`.

    The prediction's own units are those of the view that the encoder saw. Errors are taken there
    and carried over by the ratio of the two standard deviations, since true weights of quiet layers
    would lose digits beside their mean.
    """
    errors = normalized_errors(prediction, clean)
    unit = normalize(clean.tokens, clean.mask, clean.scale, config.normalization)
    errors = errors * (prediction.std / unit.std)
    return errors.square().sum() / clean.mask.sum().clamp(min=1)


def normalized_errors(prediction: ScaledTokens, clean: Windows) -> Tensor:
    """Return prediction minus clean in the prediction's units; zero where padded."""
    target = (clean.tokens - prediction.mean) / prediction.std
    return (prediction.tokens - target).masked_fill(~clean.mask, 0.0)


def scale_loss(output: BackboneOutput, clean: Windows) -> Tensor:
    """Mean squared error of the scale features that the decoder gives back, over real tokens."""
    if output.scale is None:
        return clean.tokens.new_zeros(())
    real = clean.mask.any(dim=-1)
    errors = (output.scale - output.prediction.features()).square().mean(dim=-1)
    return errors.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


def nt_xent_loss(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy of ``(batch, projection_size)`` pairs.

    Row i of `first` and row i of `second` are two views of one window; all other rows of both are
    its negatives. Source: https://arxiv.org/abs/2002.05709, equation 1.
    """
    batch = first.shape[0]
    rows = functional.normalize(torch.cat((first, second)).float(), dim=-1)
    similarity = rows @ rows.T / temperature  # (2 * batch, 2 * batch)
    itself = torch.eye(2 * batch, dtype=torch.bool, device=rows.device)
    partner = torch.arange(2 * batch, device=rows.device).roll(batch)
    return functional.cross_entropy(similarity.masked_fill(itself, float("-inf")), partner)
