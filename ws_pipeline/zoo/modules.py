"""The network classes of our own: a multilayer perceptron, a small CNN, a ResNet for small images.

Plain torch modules with plain tensor names; their sizes are the whole of their config.json. No I/O.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ws_pipeline.errors import ConfigError

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
        self.dropouts = nn.ModuleList(Dropout() for _ in hidden_sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        hidden = images.flatten(1)
        for layer, dropout in zip(self.layers[:-1], self.dropouts, strict=True):
            hidden = dropout(self.activate(layer(hidden)))
        logits: Tensor = self.layers[-1](hidden)
        return logits


class Dropout(nn.Module):
    """Multiplies by a mask that whoever trains sets; without one it does nothing.

    torch's own draws from one global stream, in which a model's mask would depend on who trains
    beside it.
    """

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply inputs by the mask: a scalar, or of their own shape."""
        return inputs * self.mask


class Cnn(nn.Module):
    """Three convolutions and two dense layers, the field's small CNN.

    On 28x28 grey images channels (8, 6, 4), kernels (5, 5, 2), no padding, pools after the first
    two and 20 hidden units are the published 2,464 parameters; on 32x32 colour images (16, 32, 15),
    kernels of 3 and three pools the published 10,853. The defaults are for images of 8x8.

    Args:
        pools: Numbers, from 1, of the convolutions that a 2x2 max pool follows.

    Source: https://arxiv.org/abs/2209.14764, section 3 and appendix A. We may normalise after each
    convolution.
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
        num_channels: int = 1,
        kernel_sizes: Sequence[int] = (3, 3, 3),
        padding: int = 1,
        pools: Sequence[int] = (1, 3),
    ) -> None:
        super().__init__()
        self.config: dict[str, object] = {
            "image_size": image_size,
            "channels": list(channels),
            "hidden_size": hidden_size,
            "num_labels": num_labels,
            "activation": activation,
            "batch_norm": batch_norm,
        }
        # Arguments that came later stand in config.json only where they say something: the files
        # of the zoos of before stay the same byte by byte.
        later: dict[str, tuple[object, object]] = {
            "num_channels": (num_channels, 1),
            "kernel_sizes": (list(kernel_sizes), [3, 3, 3]),
            "padding": (padding, 1),
            "pools": (list(pools), [1, 3]),
        }
        self.config |= {name: value for name, (value, default) in later.items() if value != default}
        self.pools = tuple(pools)
        # BatchNorm takes a bias away again: its gradient is rounding noise, which Adam blows up.
        bias = not batch_norm
        size = image_size
        for number, (before, after, kernel) in enumerate(
            zip((num_channels, *channels), channels, kernel_sizes, strict=False), start=1
        ):
            convolution = nn.Conv2d(before, after, kernel, padding=padding, bias=bias)
            setattr(self, f"conv{number}", convolution)
            setattr(self, f"bn{number}", nn.BatchNorm2d(after) if batch_norm else nn.Identity())
            size = size + 2 * padding - kernel + 1
            size = size // 2 if number in self.pools else size
        if size < 1:
            raise ConfigError(f"Images of {image_size} must be larger: kernels and pools eat them.")
        self.fc1 = nn.Linear(channels[-1] * size**2, hidden_size)
        self.fc2 = nn.Linear(hidden_size, num_labels)
        self.activate = ACTIVATIONS[activation]
        self.dropouts = nn.ModuleList(Dropout() for _ in range(4))

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        hidden = images
        for number, dropout in enumerate(self.dropouts[:3], start=1):
            convolved = self.get_submodule(f"conv{number}")(hidden)
            hidden = self.activate(self.get_submodule(f"bn{number}")(convolved))
            if number in self.pools:
                hidden = functional.max_pool2d(hidden, 2)
            hidden = dropout(hidden)
        hidden = self.dropouts[3](self.activate(self.fc1(hidden.flatten(1))))
        logits: Tensor = self.fc2(hidden)
        return logits


class _Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and the input added back."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, inputs: Tensor, activate: Callable[[Tensor], Tensor]) -> Tensor:
        """Map ``(batch, in_channels, height, width)`` to ``(batch, channels, ...)``."""
        hidden = activate(self.bn1(self.conv1(inputs)))
        return activate(self.bn2(self.conv2(hidden)) + self.downsample(inputs))


class ResNet18(nn.Module):
    """ResNet-18 for images of 32x32 and about: a 3x3 stem, four stages of two blocks.

    Tensor names are torchvision's. ``width`` is the first stage's channels: 64 gives the usual 11.2
    million parameters, 16 a slim one of 0.7 million. transformers' class has the stem for 224x224
    alone, which leaves one pixel of a small image.

    Source: https://arxiv.org/abs/1512.03385, table 1, with the stem of section 4.2.
    """

    def __init__(
        self, *, width: int, num_labels: int, activation: str, num_channels: int = 3
    ) -> None:
        super().__init__()
        self.config = {
            "width": width,
            "num_labels": num_labels,
            "activation": activation,
            "num_channels": num_channels,
        }
        self.conv1 = nn.Conv2d(num_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage in range(4):
            channels, before = width * 2**stage, width * 2 ** max(0, stage - 1)
            blocks = (_Block(before, channels, 1 + (stage > 0)), _Block(channels, channels, 1))
            setattr(self, f"layer{stage + 1}", nn.ModuleList(blocks))
        self.fc = nn.Linear(8 * width, num_labels)
        self.activate = ACTIVATIONS[activation]

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        hidden = self.activate(self.bn1(self.conv1(images)))
        for stage in range(1, 5):
            for block in self.get_submodule(f"layer{stage}").children():
                hidden = block(hidden, self.activate)
        logits: Tensor = self.fc(hidden.mean(dim=(2, 3)))
        return logits
