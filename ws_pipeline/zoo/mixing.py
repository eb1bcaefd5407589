"""Random erasing, mixup and cutmix of a stack's batches, every model by its own random stream.

Sources: random erasing, https://arxiv.org/abs/1708.04896, algorithm 1 (one draw of a rectangle,
clipped at the rim; one random grey or colour fills it); mixup, https://arxiv.org/abs/1710.09412;
cutmix, https://arxiv.org/abs/1905.04899. As in the published recipes of ViTs the share is drawn
once per batch, an image's partner is the one at the mirrored place of the batch, and a model with
both takes either with even odds. Torch and numpy; no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.batches import Batch, make_seed
from ws_pipeline.zoo.grid import ModelPlan

FACTORS = ("random_erasing", "mixup", "cutmix")
ERASED_AREAS = (0.02, 0.33)
"""Least and largest area of an erased rectangle, in images; uniform between."""
ERASED_RATIOS = (0.3, 1 / 0.3)
"""Least and largest height of it, in widths; uniform between in logarithms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedBatch:
    """A batch whose images are mixtures of two.

    Args:
        inputs: ``(models, batch, channels, height, width)``.
        labels: Of the first image ``(models, batch)``.
        other_labels: Of the second.
        shares: Of the first ``(models,)``.
    """

    inputs: Tensor
    labels: Tensor
    other_labels: Tensor
    shares: Tensor


class Mixing:
    """What a stack does to its training images.

    Raises:
        ConfigError: When a model mixes and its inputs are not images.
    """

    def __init__(self, plans: Sequence[ModelPlan], *, are_images: bool) -> None:
        self._plans = plans
        self._rates = {name: [float(plan.factors[name]) for plan in plans] for name in FACTORS}
        used = [name for name, rates in self._rates.items() if any(rates)]
        if used and not are_images:
            raise ConfigError(f"{used[0]} is for images, {plans[0].dataset!r} has none.")
        self._erases = "random_erasing" in used
        self.mixes = "mixup" in used or "cutmix" in used
        self._generators: list[np.random.Generator] = []

    def begin_epoch(self, epoch: int) -> None:
        """Open every model's stream of an epoch."""
        seeds = [make_seed(plan.model_id, f"mixing/{epoch}") for plan in self._plans]
        self._generators = [np.random.default_rng(seed) for seed in seeds]

    def erase(self, images: Tensor) -> Tensor:
        """Fill a rectangle of some images ``(models, rows, channels, height, width)``."""
        if not self._erases:
            return images
        rates = self._rates["random_erasing"]
        drawn = np.zeros((*images.shape[:2], 5 + images.shape[2]))
        for row, rate, generator in zip(drawn, rates, self._generators, strict=True):
            if rate > 0:
                generator.random(out=row)
        numbers = torch.from_numpy(drawn).to(images.dtype)
        return erase_rectangles(images, numbers, torch.tensor(rates, dtype=images.dtype))

    def mix(self, batch: Batch) -> MixedBatch:
        """Mix every image with the one at the mirrored place of its batch."""
        height, width = batch.inputs.shape[-2:]
        masks = torch.from_numpy(
            np.stack([self._draw_mask(index, height, width) for index in range(len(self._plans))])
        ).to(batch.inputs.dtype)
        kept = masks[:, None, None]  # (model, row, channel, y, x)
        return MixedBatch(
            inputs=kept * batch.inputs + (1 - kept) * batch.inputs.flip(1),
            labels=batch.labels,
            other_labels=batch.labels.flip(1),
            shares=masks.mean(dim=(1, 2)),
        )

    def _draw_mask(self, index: int, height: int, width: int) -> NDArray[np.float64]:
        """Draw how much of each pixel stays: an even share, or all of it outside a rectangle."""
        generator = self._generators[index]
        mixup, cutmix = self._rates["mixup"][index], self._rates["cutmix"][index]
        mask = np.ones((height, width))
        if not mixup and not cutmix:
            return mask
        cuts = bool(cutmix) and (not mixup or generator.random() < 0.5)
        share = generator.beta(cutmix, cutmix) if cuts else generator.beta(mixup, mixup)
        if not cuts:
            return mask * share
        half = sqrt(1 - share) / 2
        top, left = generator.random(2)
        rows = np.abs((np.arange(height) + 0.5) / height - top) < half
        columns = np.abs((np.arange(width) + 0.5) / width - left) < half
        mask[np.outer(rows, columns)] = 0
        return mask


def erase_rectangles(images: Tensor, numbers: Tensor, rates: Tensor) -> Tensor:
    """Fill a rectangle of some images with one colour each.

    Args:
        images: ``(models, rows, channels, height, width)``.
        numbers: Uniform in [0, 1), ``(models, rows, 5 + channels)``: whether, area, ratio, place
            down and across, colour.
        rates: Share of the images that each model erases from ``(models,)``.
    """
    height, width = images.shape[-2:]
    hit, area, ratio, top, left = numbers[..., :5].unbind(dim=-1)
    area = ERASED_AREAS[0] + (ERASED_AREAS[1] - ERASED_AREAS[0]) * area
    ratio = ERASED_RATIOS[0] * (ERASED_RATIOS[1] / ERASED_RATIOS[0]) ** ratio
    halves = ((area * ratio).sqrt() / 2, (area / ratio).sqrt() / 2)
    inside = [
        ((torch.arange(size) + 0.5) / size - centre[..., None]).abs() < half[..., None]
        for size, centre, half in zip((height, width), (top, left), halves, strict=True)
    ]
    erased = inside[0][..., :, None] & inside[1][..., None, :]  # (model, row, y, x)
    erased &= (hit < rates[:, None])[..., None, None]
    return torch.where(erased[:, :, None], numbers[..., 5:, None, None], images)
