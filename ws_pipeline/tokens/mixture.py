"""How often each family is drawn: weights per family, or a temperature. No I/O.

Part of a recipe. Not here: the draws themselves (``draws``), and which models there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
import numpy.typing as npt
import polars as pl

from ws_pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Shares of the families among the windows.

    Attributes:
        temperature: A family of n models gets a share in proportion to ``n ** (1 / temperature)``:
            1 draws every model alike, a large one every family alike. Source: the sampling of
            languages in mT5, https://arxiv.org/abs/2010.11934, section 3.2, with alpha = 1 / T.
        family_weights: Shares by family, up to a factor, in place of a temperature. A family that
            it does not name is not drawn.
    """

    temperature: float = 1.0
    family_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check bounds."""
        if not 1.0 <= self.temperature <= 1e6:
            raise ConfigError(
                f"Mixture.temperature must be within [1, 1000000], it is {self.temperature}."
            )
        for family, weight in self.family_weights.items():
            if not (isfinite(weight) and weight >= 0.0):
                raise ConfigError(
                    f"Mixture.family_weights must be finite and not negative, {family} has "
                    f"{weight}."
                )
        if self.family_weights and self.temperature != 1.0:
            raise ConfigError(
                "Mixture takes family_weights or a temperature, not both; it has "
                f"{len(self.family_weights)} weights and a temperature of {self.temperature}."
            )


def weigh_models(rows: pl.DataFrame, mixture: Mixture) -> npt.NDArray[np.float64]:
    """Return the probability of each model; ``(models,)``.

    Args:
        rows: Corpus rows: ``family``.
        mixture: The shares.

    Raises:
        ConfigError: If none of the families that are to be drawn is there.
    """
    sizes = rows.select(pl.len().over("family"))["len"].to_numpy().astype(np.float64)
    if mixture.family_weights:
        shares = np.array(
            [mixture.family_weights.get(family, 0.0) for family in rows["family"]], dtype=np.float64
        )
    else:
        shares = sizes ** (1.0 / mixture.temperature)
    weights = shares / sizes
    if not weights.sum() > 0.0:
        raise ConfigError(
            "Mixture.family_weights must give weight to a family that is there: "
            f"{', '.join(sorted(set(rows['family'].drop_nulls())))}."
        )
    normalized: npt.NDArray[np.float64] = weights / weights.sum()
    return normalized
