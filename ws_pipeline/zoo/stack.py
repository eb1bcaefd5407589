"""Many modules of one shape as one: parameters stacked along a models axis, run by ``vmap``.

All parameters of the models that share an optimiser's settings are one leaf ``(models,
num_params)``: an optimiser of ``torch.optim`` then takes one step over few large tensors, whatever
the number of models and layers. Buffers (BatchNorm statistics) are stacked and updated in place.
Nothing flows between models, so one that diverges hurts no other. What models see is drawn on the
CPU, so that it does not depend on the device, and moved there once a step. No I/O.

Source: https://docs.pytorch.org/tutorials/intermediate/ensembling.html. We differ in the leaves,
and in taking the gradient of the summed losses instead of ``vmap(grad)``.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from ws_pipeline.zoo.architectures import run_module
from ws_pipeline.zoo.batches import IGNORED_LABEL

LARGE_IMAGE_PIXELS = 400
"""From here on a convolution is bound by arithmetic, and one over the models' groups takes 1.6 to
1.9 times as long as one model after the other (28x28, 2,464 parameters, one Zen 4 core); at 8x8 it
takes a quarter. One by one, without ``vmap``, activations can lie channels last, where max pooling
takes a quarter of its time (32 images of 24x24x8 forward and back: 0.24 ms against 1.0)."""

CPU = torch.device("cpu")

State = dict[str, Tensor]
"""A module's parameters and persistent buffers by name."""


class _LogitsOf(nn.Module):
    """Wrap a module so that ``functional_call`` returns its logits alone."""

    def __init__(self, architecture: str, module: nn.Module) -> None:
        super().__init__()
        self.architecture = architecture
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        return run_module(self.architecture, self.module, inputs)


class Stack:
    """Models that train side by side.

    Args:
        module: A module of the common shape; only its structure is used.
        states: Initial state of each model.
        group_sizes: How many consecutive models share each leaf of parameters.
        dtype: Precision of weights and arithmetic.
        device: Where weights, buffers and arithmetic are.
    """

    def __init__(
        self,
        architecture: str,
        module: nn.Module,
        states: Sequence[Mapping[str, Tensor]],
        group_sizes: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ) -> None:
        self.num_models = len(states)
        self.device = device
        parameters = dict(module.named_parameters())  # before the move: tied ones count once
        self._wrapped = _LogitsOf(architecture, module.to(device, dtype))
        self._convolves = any(isinstance(layer, nn.Conv2d) for layer in module.modules())
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._sizes = [parameter.numel() for parameter in parameters.values()]
        flat = torch.stack([torch.cat([s[name].flatten() for name in parameters]) for s in states])
        self.leaves = [
            part.clone().requires_grad_()
            for part in torch.split(flat.to(device, dtype), [*group_sizes])
        ]
        kept = module.state_dict()
        self.buffers = {
            name: torch.stack([state[name] for state in states]).to(device, buffer.dtype)
            for name, buffer in module.named_buffers()
            if name in kept
        }

    @property
    def num_params(self) -> int:
        """Number of trained parameters of one model."""
        return sum(self._sizes)

    def forward(
        self, inputs: Tensor, *, training: bool, masks: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Run every model on its own inputs and dropout masks ``(models, batch, ...)``.

        Masks go by the name of their buffer. In training, BatchNorm's running statistics move.

        Returns:
            Logits ``(models, batch, ..., classes)``, on the stack's device.
        """
        self._wrapped.train(training)
        inputs = inputs.to(self.device)
        flat = torch.cat(self.leaves)
        parameters = {
            f"module.{name}": part.view(self.num_models, *shape)
            for (name, shape), part in zip(
                self._shapes.items(), torch.split(flat, self._sizes, dim=1), strict=True
            )
        }
        drawn = {name: mask.to(self.device) for name, mask in (masks or {}).items()}
        buffers = {**self.buffers, **drawn}
        buffers = {f"module.{name}": buffer for name, buffer in buffers.items()}
        is_large = self._convolves and inputs[0, 0].numel() >= LARGE_IMAGE_PIXELS
        if is_large and self.device.type == "cpu":
            return self._run_in_turn(parameters, buffers, inputs)
        logits: Tensor = vmap(self._run_one, randomness="error")(parameters, buffers, inputs)
        return logits

    def _run_in_turn(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor
    ) -> Tensor:
        """Run one model after the other, activations channels last."""
        rows = inputs.flatten(0, 1)
        # A copy into fresh memory: one channel alone counts as channels last whatever its strides.
        laid_out = torch.empty_like(rows, memory_format=torch.channels_last).copy_(rows)
        own_parameters = {name: part.unbind() for name, part in parameters.items()}
        logits = [
            self._run_one(
                {name: parts[index] for name, parts in own_parameters.items()},
                {name: buffer[index] for name, buffer in buffers.items()},
                own_rows,
            )
            for index, own_rows in enumerate(laid_out.view(inputs.shape))
        ]
        return torch.stack(logits)

    def _run_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor
    ) -> Tensor:
        output: Tensor = functional_call(self._wrapped, (parameters, buffers), (inputs,))
        return output

    def state(self, index: int) -> State:
        """Copy out one model's parameters and buffers, to the CPU."""
        with torch.no_grad():
            flat = torch.cat(self.leaves)[index].cpu()
        parts = zip(self._shapes.items(), torch.split(flat, self._sizes), strict=True)
        state = {name: part.view(shape).clone() for (name, shape), part in parts}
        own = {name: buffer[index].clone().cpu() for name, buffer in self.buffers.items()}
        return state | own

    def finite(self) -> Tensor:
        """Tell which models have only finite parameters: ``(models,)``."""
        with torch.no_grad():
            return torch.cat([leaf.isfinite().all(dim=1) for leaf in self.leaves])


def losses_of(logits: Tensor, labels: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Average the cross entropy of each model over its labels: ``(models,)``.

    Args:
        logits: ``(models, batch, ..., classes)``.
        labels: ``(models, batch, ...)``, some of them ignored, on any device.
        smoothing: Label smoothing of each model ``(models,)``; None for none at all.
    """
    num_models = len(labels)
    labels = labels.to(logits.device)
    rows = logits.reshape(-1, logits.shape[-1])
    entropy = functional.cross_entropy(
        rows, labels.reshape(-1), reduction="none", ignore_index=IGNORED_LABEL
    ).view(num_models, -1)
    counted = (labels != IGNORED_LABEL).view(num_models, -1)
    if smoothing is not None:
        even = -functional.log_softmax(rows, dim=-1).mean(dim=-1).view(num_models, -1) * counted
        entropy = (1 - smoothing[:, None]) * entropy + smoothing[:, None] * even
    return entropy.sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def accuracies_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of each model's labels that it gets right: ``(models,)``."""
    labels = labels.to(logits.device)
    counted = (labels != IGNORED_LABEL).flatten(1)
    right = (logits.argmax(dim=-1) == labels).flatten(1) & counted
    return right.sum(dim=1) / counted.sum(dim=1).clamp(min=1)
