"""Random changes of training images, each model's by its own stream. Torch; no I/O.

Factors ``flip`` (share of the images mirrored left to right), ``shift`` (most pixels that an image
moves, each way, zeros coming in) and ``noise`` (standard deviation of normal noise on [0, 1]). What
is drawn for a model does not depend on who trains beside it. Not here: mixing images or erasing
parts of them, and the views of contrastive training.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.grid import ModelPlan

FACTORS = ("flip", "shift", "noise")


class Augmentation:
    """The changes of one epoch.

    Args:
        plans: The models, in the order of the batches.
        generators: One per model, opened for this epoch.

    Raises:
        ConfigError: When a model that reads text has such a factor.
    """

    def __init__(
        self, plans: Sequence[ModelPlan], generators: Sequence[torch.Generator], *, is_text: bool
    ) -> None:
        settings = [tuple(float(plan.factors[name]) for name in FACTORS) for plan in plans]
        self._settings = settings
        self._generators = generators
        if is_text and any(any(own) for own in settings):
            raise ConfigError(f"{', '.join(FACTORS)} change images, {plans[0].dataset!r} has none.")

    def apply(self, images: Tensor) -> Tensor:
        """Change a batch ``(models, rows, channels, height, width)`` in [0, 1], or pass it on."""
        if not any(any(own) for own in self._settings):
            return images
        changed = images.clone()
        for own, settings, generator in zip(changed, self._settings, self._generators, strict=True):
            flip, shift, noise = settings
            if flip:
                mirrored = torch.rand(len(own), generator=generator) < flip
                own[mirrored] = own[mirrored].flip(-1)
            if shift:
                most = int(shift)
                steps = torch.randint(-most, most + 1, (len(own), 2), generator=generator)
                own.copy_(shift_images(own, steps))
            if noise:
                drawn = torch.randn(own.shape, generator=generator)
                own.add_(drawn.to(own.dtype), alpha=noise).clamp_(0, 1)
        return changed


def shift_images(images: Tensor, steps: Tensor) -> Tensor:
    """Move every image down and right, zeros coming in.

    Args:
        images: ``(rows, channels, height, width)``.
        steps: Pixels down and right of each, negative for up and left ``(rows, 2)``.
    """
    num_rows, num_channels, height, width = images.shape
    down = torch.arange(height) - steps[:, :1]  # (row, height): where each line comes from
    across = torch.arange(width) - steps[:, 1:]
    is_inside = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[
        :, None
    ]
    places = down.clamp(0, height - 1)[:, :, None] * width + across.clamp(0, width - 1)[:, None]
    places = places.view(num_rows, 1, -1).expand(-1, num_channels, -1)
    moved = images.flatten(2).gather(2, places).view_as(images)
    return moved * is_inside[:, None]
