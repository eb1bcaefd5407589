"""How weights are drawn before training, as a generating factor of a zoo. Torch; no I/O.

Weights of two and more axes are drawn anew, biases and norms stay as their class makes them. All
keep the variance of activations in bounds; the published grids also have U(0, 1), with which hardly
a model learns. Source of the factor: https://arxiv.org/abs/2209.14764, appendix A.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _uniform(weight: Tensor) -> None:
    bound = 1 / math.sqrt(_fan_in(weight))
    nn.init.uniform_(weight, -bound, bound)


def _normal(weight: Tensor) -> None:
    nn.init.normal_(weight, std=1 / math.sqrt(_fan_in(weight)))


def _kaiming_uniform(weight: Tensor) -> None:
    nn.init.kaiming_uniform_(weight, nonlinearity="relu")


def _kaiming_normal(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


INITIALIZERS: dict[str, Callable[[Tensor], None]] = {
    "uniform": _uniform,
    "normal": _normal,
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
}


def initialize_weights(module: nn.Module, name: str) -> None:
    """Draw a module's weights from torch's global stream; ``"default"`` leaves them."""
    if name == "default":
        return
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            INITIALIZERS[name](parameter)
