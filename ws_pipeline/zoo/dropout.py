"""Dropout masks of a stack: every model draws its own, from a stream of its own. Torch; no I/O."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from ws_pipeline.zoo.architectures import run_module
from ws_pipeline.zoo.batches import make_generator
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.modules import Dropout


class DropoutMasks:
    """The masks that a stack of models trains with.

    Args:
        plans: The models; they share an architecture and its sizes.
        module: A module of their shape.
        example: Inputs of one row ``(1, ...)``, from which the shapes of the masks follow.
    """

    def __init__(self, plans: Sequence[ModelPlan], module: nn.Module, example: Tensor) -> None:
        self._rates = [float(plan.factors["dropout"]) for plan in plans]
        self._plans = plans
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._generators: list[torch.Generator] = []
        if any(self._rates):
            self._shapes = _mask_shapes(plans[0].architecture, module, example)

    def begin_epoch(self, epoch: int) -> None:
        """Open every model's stream of an epoch."""
        purpose = f"dropout/{epoch}"
        self._generators = [make_generator(plan.model_id, purpose) for plan in self._plans]

    def draw(self, num_rows: int) -> dict[str, Tensor]:
        """Draw the masks of one step.

        Returns:
            Masks ``(models, rows, ...)`` by the name of their buffer: 0, or what keeps the mean.
            Empty where no model drops anything.
        """
        if not self._shapes:
            return {}
        sizes = [prod(shape) for shape in self._shapes.values()]
        drawn = torch.ones(len(self._plans), num_rows, sum(sizes))
        for row, rate, generator in zip(drawn, self._rates, self._generators, strict=True):
            if rate > 0:
                kept = torch.rand(row.shape, generator=generator) >= rate
                row.copy_(kept / (1 - rate))
        parts = zip(self._shapes.items(), torch.split(drawn, sizes, dim=-1), strict=True)
        return {name: part.reshape(*part.shape[:2], *shape) for (name, shape), part in parts}


def _mask_shapes(
    architecture: str, module: nn.Module, example: Tensor
) -> dict[str, tuple[int, ...]]:
    """Shape of one row at every dropout layer, by the name of the layer's buffer."""
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, Dropout):

            def note(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
                shapes[f"{name}.mask"] = tuple(inputs[0].shape[1:])

            hooks.append(layer.register_forward_pre_hook(note))
    was_training = module.training
    with torch.no_grad():
        run_module(architecture, module.eval(), example)
    module.train(was_training)
    for hook in hooks:
        hook.remove()
    return shapes
