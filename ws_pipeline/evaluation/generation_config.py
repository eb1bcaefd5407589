"""What the generation study asks: which anchors, for what, against which budget. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ws_pipeline.errors import ConfigError
from ws_pipeline.generation.config import DensityConfig
from ws_pipeline.zoo.config import Size

STEPS_PER_LOOK = 10
"""Optimiser steps between two looks at the validation split, and the unit of `steps`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationCase:
    """Anchors of one population, and what is to be made of them.

    Attributes:
        zoo: Its name.
        population: Of the zoo: where anchors and training models come from.
        dataset: What the new models shall do.
        sizes: Sizes of the new architecture that differ from the anchors'.
    """

    zoo: str = "demo"
    population: str
    dataset: str
    sizes: Mapping[str, Size] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The case in a table: `cnn-digits to digits-inverted, hidden_size 48`."""
        changes = "".join(f", {name} {value}" for name, value in sorted(self.sizes.items()))
        return f"{self.population} to {self.dataset}{changes}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationConfig:
    """The study of one recipe.

    Attributes:
        cases: What is asked of; without any the study is empty.
        densities: What is drawn from, each with the best of its draws (SUB). The first is also
            iterated (BOOT), and sets the size of the noise that is added to anchors for comparison.
        num_anchors: Drawn for each seed from the better half of the population.
        num_candidates: Draws, of which validation chooses; every baseline that draws has as many.
        num_kept: Models that are the anchors of the next round of BOOT.
        num_rounds: Of BOOT.
        seeds: Of anchors, draws and training data; the intervals are over these.
        steps: After how many steps models are tested; multiples of `STEPS_PER_LOOK`.
        learning_rates: Scratch is trained with each; the one that is best for it goes for all.
        batch_size: Of the training.
        eval_rows: Rows of each held-out split; 0 for all.
        target_share: Of the accuracy that scratch has in the end: what steps-to-target counts to.
    """

    cases: tuple[GenerationCase, ...] = ()
    densities: tuple[DensityConfig, ...] = (
        DensityConfig(kind="model-kde", bandwidth=0.2),
        DensityConfig(kind="blend", bandwidth=0.1),
        DensityConfig(kind="subspace", bandwidth=0.1),
        DensityConfig(kind="gaussian", bandwidth=0.1),
        DensityConfig(kind="token-kde", bandwidth=0.1),
    )
    num_anchors: int = 5
    num_candidates: int = 20
    num_kept: int = 3
    num_rounds: int = 3
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: tuple[int, ...] = (0, 10, 50, 100, 500)
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    batch_size: int = 32
    eval_rows: int = 1_000
    target_share: float = 0.95

    def __post_init__(self) -> None:
        """Check bounds; ConfigError names the field, its bound and the value."""
        for name, low, high in (
            ("num_anchors", 1, 1_000),
            ("num_candidates", 1, 10_000),
            ("num_kept", 1, self.num_candidates),
            ("num_rounds", 1, 100),
            ("batch_size", 1, 65_536),
            ("eval_rows", 0, 10_000_000),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"generation: {name} must lie in [{low}, {high}], got {getattr(self, name)}"
                )
        if not (self.densities and self.learning_rates and len(set(self.seeds)) >= 2):
            raise ConfigError(
                "generation: densities and learning_rates must each name at least one value, and "
                f"seeds two different ones for an interval, got {self.seeds}"
            )
        bad = [step for step in self.steps if step % STEPS_PER_LOOK or step < 0]
        if bad or 0 not in self.steps or max(self.steps) == 0:
            raise ConfigError(
                f"generation: steps must be 0 and multiples of {STEPS_PER_LOOK}, got {self.steps}"
            )
        if not 0.0 < self.target_share <= 1.0:
            raise ConfigError(
                f"generation: target_share must lie in (0, 1], got {self.target_share}"
            )
