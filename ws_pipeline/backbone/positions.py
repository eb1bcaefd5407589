"""Where a token stands, as a vector: learned tables, summed sinusoids, or separate bands.

A position is (n, l, k): place in the model, layer, place in the layer. All codes map
``(batch, window, 3)`` integers to ``(batch, window, width)`` float32. No I/O.

Source: METHOD 3. `learned` is SANE's (arXiv 2406.09997), `summed` the hub paper's (arXiv
2510.02096), `banded` is ours: `summed` is symmetric in (n, l, k), so (17, 3, 5) and (5, 17, 3)
collide, and its longest period (62,832 tokens) is shorter than a 1.3 B model (5.6 M tokens).
"""

import math

import torch
from torch import Tensor, nn

from ws_pipeline.arrays import NUM_POSITION_COORDINATES
from ws_pipeline.backbone.config import BackboneConfig

SUMMED_BASE = 10_000.0
"""Base of the hub paper's frequencies; their longest period is 2 * pi * 10,000."""

SHORTEST_PERIOD = 4.0
"""Of the banded code, in tokens: below 2 a wave aliases, near 4 neighbours differ most."""

LONGEST_PERIOD = 4e8
"""Of the banded code: 1e8 tokens (a 23 B model) are a quarter turn, so sine alone orders them."""


MAX_LAYER_ROWS = 1_024
"""Of the learned table of layers: BERT-large has 400 tensors; layers beyond share the last row."""


class LearnedCode(nn.Module):
    """One table per coordinate, summed. Positions beyond a table share its last row.

    Source: SANE; the tables cap the model size, which is why ours is `banded`.
    """

    def __init__(self, width: int, max_positions: int) -> None:
        super().__init__()
        self.sizes = (max_positions, min(max_positions, MAX_LAYER_ROWS), max_positions)
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in self.sizes)

    def forward(self, positions: Tensor) -> Tensor:
        """Look up ``(batch, window, 3)`` integers; ``(batch, window, width)``."""
        codes = [
            table(positions[..., i].clamp(0, size - 1))
            for i, (table, size) in enumerate(zip(self.tables, self.sizes, strict=True))
        ]
        return torch.stack(codes).sum(dim=0)


class SummedCode(nn.Module):
    """``e[2i] = sum over (n, l, k) of sin(p * 10000^(-2i/width))``, ``e[2i+1]`` likewise with cos.

    Source: https://arxiv.org/abs/2510.02096, as METHOD 3 states it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        frequencies = SUMMED_BASE**-exponents / (2 * math.pi)  # turns per token
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Encode ``(batch, window, 3)`` integers; ``(batch, window, width)``."""
        frequencies = self.get_buffer("frequencies")
        waves = _waves(positions[..., None], frequencies)  # (batch, window, 3, width / 2, 2)
        return waves.sum(dim=2).flatten(-2)


class BandedCode(nn.Module):
    """A band of the width for each coordinate, with its own sines and cosines.

    Periods grow geometrically from `SHORTEST_PERIOD` to `LONGEST_PERIOD`. Phases are computed in
    float64 and reduced to one turn before they become float32: at position 1e8 a float32 phase
    would be off by whole turns. Columns that three equal bands leave over stay zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        num_waves = width // (2 * NUM_POSITION_COORDINATES)
        periods = torch.logspace(
            math.log10(SHORTEST_PERIOD), math.log10(LONGEST_PERIOD), num_waves, dtype=torch.float64
        )
        self.register_buffer("frequencies", 1.0 / periods, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Encode ``(batch, window, 3)`` integers; ``(batch, window, width)``."""
        frequencies = self.get_buffer("frequencies")
        bands = _waves(positions[..., None], frequencies).flatten(2)
        return nn.functional.pad(bands, (0, self.width - bands.shape[-1]))


def _waves(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Return sin and cos of ``positions * frequencies`` turns, stacked last, in float32."""
    turns = torch.remainder(positions.to(torch.float64) * frequencies, 1.0)
    phases = (turns * (2 * math.pi)).to(torch.float32)
    return torch.stack((phases.sin(), phases.cos()), dim=-1)


def position_code(config: BackboneConfig) -> nn.Module:
    """Return the code that a config names."""
    if config.position_code == "learned":
        return LearnedCode(config.width, config.max_positions)
    if config.position_code == "summed":
        return SummedCode(config.width)
    return BandedCode(config.width)
