"""Contrastive pre-training of a stack: two views of the SAME image, no labels. Torch; no I/O.

Source: SimCLR, https://arxiv.org/abs/2002.05709, section 2 (NT-Xent over both views of a batch, a
projection head that is thrown away) and its linear evaluation. The views are a random crop, turn,
contrast and brightness; no mirror images, since digits and letters have a direction. What is
published in place of the projection is a linear classifier, fitted in closed form to the frozen
features: such a repo is read and scored like any other.
"""

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.architectures import ARCHITECTURES
from ws_pipeline.zoo.batches import make_generator
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.heads import HEAD_PREFIXES

PROJECTION_SIZE = 128
"""Numbers of a projection; SimCLR's."""
LEAST_CROP = 0.6
"""Side of the smallest crop, in sides of the image."""
LARGEST_TURN = pi / 12
LARGEST_CONTRAST_CHANGE = 0.4
LARGEST_BRIGHTNESS_CHANGE = 0.2
NUM_VIEW_NUMBERS = 6
PROBE_SHRINKAGE = 1e-3
"""Of the features' covariance towards an even one, as a share of their mean variance."""


class Projection(nn.Module):
    """Two dense layers while it trains; the features themselves when it does not.

    Its initial weights are drawn by ``generator``, torch's global stream stays where it is.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__()
        # Made without weights: drawing them would move torch's global stream.
        self.dense = nn.Linear(size, size, device="meta").to_empty(device="cpu")
        self.output = nn.Linear(size, PROJECTION_SIZE, device="meta").to_empty(device="cpu")
        for layer in (self.dense, self.output):
            nn.init.normal_(layer.weight, std=size**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(batch, size)`` to projections ``(batch, projections)``."""
        if not self.training:
            return features
        projected: Tensor = self.output(functional.gelu(self.dense(features)))
        return projected


def attach_projection(module: nn.Module, architecture: str, seed: int) -> nn.Module:
    """Put a projection in place of a classifier's output layer.

    Raises:
        ConfigError: When the architecture does not read images or has no such layer by name.
    """
    prefixes = HEAD_PREFIXES[architecture]
    place = prefixes[-1].rstrip(".") if prefixes else ""
    head = dict(module.named_modules()).get(place)
    if ARCHITECTURES[architecture].inputs != "images" or not isinstance(head, nn.Linear):
        raise ConfigError(
            "objective 'contrastive' needs an image classifier with one output layer, "
            f"{architecture!r} is none: take vit, cnn or resnet18."
        )
    generator = torch.Generator().manual_seed(seed)
    module.set_submodule(place, Projection(head.in_features, generator))
    return module


class Views:
    """Two random views of every image of a stack, each model's by its own stream."""

    def __init__(self, plans: Sequence[ModelPlan]) -> None:
        self._plans = plans
        self._generators: list[torch.Generator] = []

    def begin_epoch(self, epoch: int) -> None:
        """Open every model's stream of an epoch."""
        self._generators = [make_generator(plan.model_id, f"views/{epoch}") for plan in self._plans]

    def draw(self, images: Tensor) -> Tensor:
        """Return views ``(models, 2 * rows, ...)``: one of every image, then another of each."""
        shape = (2 * images.shape[1], NUM_VIEW_NUMBERS)
        numbers = torch.stack([torch.rand(shape, generator=g) for g in self._generators])
        return change_images(torch.cat([images, images], dim=1), numbers.to(images.dtype))


def change_images(images: Tensor, numbers: Tensor) -> Tensor:
    """Crop, turn and tint images.

    Args:
        images: In [0, 1], ``(models, rows, channels, height, width)``.
        numbers: Uniform in [0, 1), ``(models, rows, 6)``: side, place down and across, turn,
            contrast, brightness. With side and the rest at 1, 1/2, ... nothing changes.
    """
    side, *others = numbers.flatten(0, 1).unbind(dim=-1)
    down, across, turn, contrast, brightness = (2 * number - 1 for number in others)
    side = LEAST_CROP + (1 - LEAST_CROP) * side
    cos, sin = side * (LARGEST_TURN * turn).cos(), side * (LARGEST_TURN * turn).sin()
    rows = (cos, -sin, (1 - side) * across, sin, cos, (1 - side) * down)
    grids = functional.affine_grid(
        torch.stack(rows, dim=-1).view(-1, 2, 3),
        [len(side), *images.shape[2:]],
        align_corners=False,
    )
    views = functional.grid_sample(images.flatten(0, 1), grids, align_corners=False)
    gain = (1 + LARGEST_CONTRAST_CHANGE * contrast)[:, None, None, None]
    offset = (LARGEST_BRIGHTNESS_CHANGE * brightness)[:, None, None, None]
    return (views * gain + offset).clamp(0, 1).view_as(images)


def contrastive_losses(projections: Tensor, temperatures: Tensor) -> Tensor:
    """Average NT-Xent of each model: ``(models,)``.

    Args:
        projections: ``(models, 2 * rows, size)``; rows ``i`` and ``rows + i`` are one image.
        temperatures: ``(models,)``.
    """
    num_models, num_views, _ = projections.shape
    unit = functional.normalize(projections, dim=-1)
    similarities = unit @ unit.mT / temperatures[:, None, None]
    itself = torch.eye(num_views, dtype=torch.bool, device=projections.device)
    similarities = similarities.masked_fill(itself, -torch.inf)
    partners = torch.arange(num_views, device=projections.device).roll(num_views // 2)
    losses = functional.cross_entropy(
        similarities.flatten(0, 1), partners.repeat(num_models), reduction="none"
    )
    return losses.view(num_models, num_views).mean(dim=1)


def fit_probes(features: Tensor, labels: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier to every model's features: linear discriminant analysis.

    In closed form, and its softmax is a probability, which least squares' is not. Rows without a
    label do not count; a model whose features are not finite gets a useless classifier.

    Args:
        features: ``(models, rows, size)``.
        labels: ``(models, rows)``.
        num_labels: How many classes there are.

    Returns:
        Weights ``(models, labels, size)`` and biases ``(models, labels)``.
    """
    rows = features.double().nan_to_num()
    classes = torch.arange(num_labels, device=rows.device)
    members = (labels[..., None] == classes).double()  # (model, row, label)
    counts = members.sum(dim=1).clamp(min=1)
    means = members.mT @ rows / counts[..., None]
    counted = members.sum(dim=-1, keepdim=True)
    within = (rows - members @ means) * counted
    covariances = within.mT @ within / counted.sum(dim=1, keepdim=True).clamp(min=1)
    size = rows.shape[-1]
    spread = covariances.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    identity = torch.eye(size, dtype=rows.dtype, device=rows.device)
    covariances = covariances + (PROBE_SHRINKAGE * spread + 1e-12) * identity
    weights = torch.linalg.solve_ex(covariances, means.mT).result.mT
    priors = (counts / counts.sum(dim=1, keepdim=True)).log()
    biases = priors - (weights * means).sum(dim=-1) / 2
    return weights.to(features.dtype), biases.to(features.dtype)
