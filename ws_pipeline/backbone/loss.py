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
from ws_pipeline.backbone.normalization import LOCAL, Reduction, ScaledTokens, normalize
from ws_pipeline.backbone.parallel import gather_rows


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


def split_windows(windows: Windows, num_parts: int, num_views: int = 1) -> list[Windows]:
    """Cut a batch into equal parts; each view of a part follows the other, as in the batch."""
    if num_parts == 1:
        return [windows]
    size = windows.tokens.shape[0] // num_views
    parts = []
    for rows in torch.arange(size).chunk(num_parts):
        index = torch.cat([rows + view * size for view in range(num_views)])
        parts.append(Windows(*(tensor[index] for tensor in windows)))
    return parts


class Counts(NamedTuple):
    """What the means of a step are taken over, where a batch is only a part of it.

    With these, losses and gradients summed over parts and averaged over processes are those of the
    whole step, however unevenly its padding falls.

    Attributes:
        num_weights: Real weights of the step's targets, divided by the number of processes.
        num_tokens: Real tokens of them, likewise.
        num_parts: Parts that this process sums over.
        over: The processes that share the batch.
    """

    num_weights: Tensor
    num_tokens: Tensor
    num_parts: int
    over: Reduction = LOCAL

    @classmethod
    def of(cls, clean: Windows) -> "Counts":
        """Return those of a batch that is the whole step."""
        return cls(clean.mask.sum(), clean.mask.any(dim=-1).sum(), 1)


class Losses(NamedTuple):
    """The sum and its parts, scalars; a part that is switched off is zero."""

    total: Tensor
    reconstruction: Tensor
    contrastive: Tensor
    scale: Tensor


def backbone_loss(
    output: BackboneOutput, targets: Windows, config: LossConfig, *, counts: Counts | None = None
) -> Losses:
    """Combine the losses of one batch.

    Args:
        output: Of the views of some windows. With a contrastive term these are two of each, one
            view after the other along the batch axis, and it pairs them.
        targets: The clean window of each view.
        config: Weights of the terms.
        counts: Of the step that the batch is a part of; None where it is all of it.
    """
    counts = counts or Counts.of(targets)
    contrastive = targets.tokens.new_zeros(())
    if config.contrastive_weight > 0.0 and output.projection is not None:
        first, second = output.projection.chunk(2)
        contrastive = nt_xent_loss(first, second, temperature=config.temperature)
        contrastive = contrastive / counts.num_parts
    errors = reconstruction_errors(output.prediction, targets, config, over=counts.over)
    reconstruction = errors / counts.num_weights.clamp(min=1)
    scale = scale_errors(output, targets) / counts.num_tokens.clamp(min=1)
    weight = config.contrastive_weight
    total = (1.0 - weight) * reconstruction + weight * contrastive + config.scale_weight * scale
    return Losses(total, reconstruction, contrastive, scale)


def reconstruction_errors(
    prediction: ScaledTokens, clean: Windows, config: LossConfig, *, over: Reduction = LOCAL
) -> Tensor:
    """Sum of squared errors over real weights, in units of `config.normalization`.

    The prediction's own units are those of the view that the encoder saw. Errors are taken there
    and carried over by the ratio of the two standard deviations, since true weights of quiet layers
    would lose digits beside their mean.
    """
    errors = normalized_errors(prediction, clean)
    unit = normalize(clean.tokens, clean.mask, clean.scale, config.normalization, over)
    return (errors * (prediction.std / unit.std)).square().sum()


def normalized_errors(prediction: ScaledTokens, clean: Windows) -> Tensor:
    """Return prediction minus clean in the prediction's units; zero where padded."""
    target = (clean.tokens - prediction.mean) / prediction.std
    return (prediction.tokens - target).masked_fill(~clean.mask, 0.0)


def scale_errors(output: BackboneOutput, clean: Windows) -> Tensor:
    """Squared error of the scale features that the decoder gives back, summed over real tokens."""
    if output.scale is None:
        return clean.tokens.new_zeros(())
    real = clean.mask.any(dim=-1)
    errors = (output.scale - output.prediction.features()).square().mean(dim=-1)
    return errors.masked_fill(~real, 0.0).sum()


def nt_xent_loss(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy of ``(batch, projection_size)`` pairs.

    Row i of `first` and row i of `second` are two views of one window; all other rows of both, on
    all processes, are its negatives. The mean over this process's rows; averaged over processes, it
    is the loss of their batches put together, and so are its gradients.
    Source: https://arxiv.org/abs/2002.05709, equation 1.
    """
    batch = first.shape[0]
    pairs = torch.stack((first, second), dim=1).float()  # (batch, 2, projection_size)
    every, offset = gather_rows(functional.normalize(pairs, dim=-1))
    keys = every.flatten(0, 1)  # row 2 * i + v is view v of window i
    itself = 2 * offset + torch.arange(2 * batch, device=keys.device)
    similarity = keys[itself] @ keys.T / temperature  # (2 * batch, 2 * all)
    similarity = similarity.scatter(1, itself[:, None], float("-inf"))
    return functional.cross_entropy(similarity, itself ^ 1)
