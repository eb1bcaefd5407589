"""The two network classes that transformers does not have: a multilayer perceptron and a small CNN.

Plain torch modules with plain tensor names; their sizes are the whole of their config.json. No I/O.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "sigmoid": torch.sigmoid,
}


class Mlp(nn.Module):
    """Dense layers ``layers.0``, ``layers.1``, ... with one activation between them."""

    def __init__(
        self, *, input_size: int, hidden_sizes: Sequence[int], num_labels: int, activation: str
    ) -> None:
        super().__init__()
        self.config = {
            "input_size": input_size,
            "hidden_sizes": list(hidden_sizes),
            "num_labels": num_labels,
            "activation": activation,
        }
        sizes = [input_size, *hidden_sizes, num_labels]
        self.layers = nn.ModuleList(
            nn.Linear(size, next_size) for size, next_size in pairwise(sizes)
        )
        self.activate = ACTIVATIONS[activation]

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        hidden = images.flatten(1)
        for layer in self.layers[:-1]:
            hidden = self.activate(layer(hidden))
        logits: Tensor = self.layers[-1](hidden)
        return logits


class Cnn(nn.Module):
    """Three 3x3 convolutions and two dense layers, the field's small CNN.

    Source: https://arxiv.org/abs/2209.14764, section 3 (3 conv + 2 dense). We pool after the first
    and the third convolution, for images of 8x8, and may normalise after each convolution.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: Sequence[int],
        hidden_size: int,
        num_labels: int,
        activation: str,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        self.config = {
            "image_size": image_size,
            "channels": list(channels),
            "hidden_size": hidden_size,
            "num_labels": num_labels,
            "activation": activation,
            "batch_norm": batch_norm,
        }
        first, second, third = channels
        # BatchNorm takes a bias away again: its gradient is rounding noise, which Adam blows up.
        bias = not batch_norm
        self.conv1 = nn.Conv2d(1, first, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(first) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(second) if batch_norm else nn.Identity()
        self.conv3 = nn.Conv2d(second, third, 3, padding=1, bias=bias)
        self.bn3 = nn.BatchNorm2d(third) if batch_norm else nn.Identity()
        self.fc1 = nn.Linear(third * (image_size // 4) ** 2, hidden_size)
        self.fc2 = nn.Linear(hidden_size, num_labels)
        self.activate = ACTIVATIONS[activation]

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, 1, height, width)`` to logits ``(batch, classes)``."""
        hidden = functional.max_pool2d(self.activate(self.bn1(self.conv1(images))), 2)
        hidden = self.activate(self.bn2(self.conv2(hidden)))
        hidden = functional.max_pool2d(self.activate(self.bn3(self.conv3(hidden))), 2)
        logits: Tensor = self.fc2(self.activate(self.fc1(hidden.flatten(1))))
        return logits
