"""AdamW with weight decay on matrices only, and the learning rate as a pure function of the step.

A schedule without state has nothing to checkpoint: a resumed run computes the same rate. No I/O.

Source: METHOD 4. OneCycle is https://arxiv.org/abs/1708.07120 as torch draws it: two phases of a
cosine, from 1/25 of the peak up and down to 1/250,000 of it. The betas stay as they are. `cosine`
rises linearly and falls along half a cosine to zero.
"""

import math

import torch
from torch import nn

from ws_pipeline.backbone.config import TrainingConfig

DIV_FACTOR = 25.0
FINAL_DIV_FACTOR = 1e4
"""torch's defaults for OneCycleLR."""


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Return fused AdamW over the parameters that need a gradient.

    Only matrices are decayed: norm scales, gains and biases would be pulled to zero for nothing.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step, counted from 0, on the schedule that the config names."""
    return (one_cycle if config.schedule == "one_cycle" else cosine)(step, config)


def cosine(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine that would end at zero."""
    warmup = config.warmup_fraction * config.num_steps
    if step + 1 <= warmup:
        return config.learning_rate * (step + 1) / warmup
    return _anneal(config.learning_rate, 0.0, (step + 1 - warmup) / (config.num_steps - warmup + 1))


def one_cycle(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step, counted from 0."""
    peak = config.learning_rate
    initial = peak / DIV_FACTOR
    last = config.num_steps - 1
    top = config.warmup_fraction * config.num_steps - 1.0
    if step <= top:
        return _anneal(initial, peak, step / top if top > 0 else 1.0)
    return _anneal(peak, initial / FINAL_DIV_FACTOR, (step - top) / max(last - top, 1e-9))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _anneal(start: float, end: float, fraction: float) -> float:
    """Go from start to end along half a cosine."""
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
