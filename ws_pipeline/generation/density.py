"""Densities over the codes of anchors, and draws from them. Pure; randomness is an argument.

Every draw is a mixture of anchors plus noise. Noise is drawn for each number of each token on its
own (the released samplers use one random state for all tokens), and its size is relative to the
anchors' spread at that place (theirs is one absolute bandwidth). What the kinds differ in is the
mixture:

============  =====================================================================================
``token-kde``  each token follows one anchor, drawn for it alone: SANE's density (arXiv 2406.09997)
``model-kde``  all tokens follow the same anchor: a kernel around whole models
``gaussian``   the anchors' mean at each place; the spread itself is the noise's unit
``subspace``   a Gaussian over whole models of rank (anchors - 1): correlations between tokens live
``blend``      a point between the anchors, Dirichlet weights, the same for all tokens
============  =====================================================================================

Ours are the two last and `model-kde`: a network's layers only work together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import ConfigError
from ws_pipeline.generation.codes import ModelCode

DENSITY_KINDS = ("token-kde", "model-kde", "gaussian", "subspace", "blend")
FloatArray = npt.NDArray[np.float64]

MAX_BANDWIDTH = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DensityConfig:
    """What is drawn from.

    Attributes:
        kind: How anchors are mixed.
        bandwidth: Standard deviation of the noise, in units of the anchors' spread at each place.
        concentration: Of the Dirichlet weights of `blend`: below 1 draws lie near single anchors.
    """

    kind: str = "model-kde"
    bandwidth: float = 0.1
    concentration: float = 0.3

    def __post_init__(self) -> None:
        """Check bounds; ConfigError names the field, its bound and the value."""
        if self.kind not in DENSITY_KINDS:
            known = ", ".join(DENSITY_KINDS)
            raise ConfigError(f"DensityConfig: kind must be one of {known}, got {self.kind!r}")
        if not 0.0 <= self.bandwidth <= MAX_BANDWIDTH:
            raise ConfigError(
                f"DensityConfig: bandwidth must lie in [0, {MAX_BANDWIDTH:g}], got {self.bandwidth}"
            )
        if not 1e-3 <= self.concentration <= 1e3:
            raise ConfigError(
                f"DensityConfig: concentration must lie in [0.001, 1000], got {self.concentration}"
            )


class Density:
    """A density over the codes of models of one shape.

    Args:
        anchors: At least one; of one shape, and aligned if they shall be mixed.
        config: What is drawn from.
    """

    def __init__(self, anchors: Sequence[ModelCode], config: DensityConfig) -> None:
        self.config = config
        self._latents = np.stack([code.latents for code in anchors]).astype(np.float64)
        self._scales = np.stack([code.scale for code in anchors])
        self._spread = _spread(self._latents)
        self._scale_spread = _spread(self._scales) if len(anchors) > 1 else 0.0

    @property
    def num_anchors(self) -> int:
        """Anchors that it was fitted to."""
        return len(self._latents)

    def draw(self, generator: np.random.Generator) -> ModelCode:
        """Draw one model's code."""
        model_shares = self._draw_shares(generator)
        if self.config.kind == "token-kde":
            num_tokens = self._latents.shape[1]
            followed = generator.integers(self.num_anchors, size=num_tokens)
            latents = self._latents[followed, np.arange(num_tokens)]
        else:
            latents = np.tensordot(model_shares, self._latents, axes=1)
        scale = np.tensordot(model_shares, self._scales, axes=1)
        noise = self.config.bandwidth * self._spread
        latents = latents + noise * generator.standard_normal(latents.shape)
        drift = self.config.bandwidth * self._scale_spread
        scale = scale + drift * generator.standard_normal(scale.shape)
        # A layer's scale acts on all of its weights at once: never beyond what an anchor has.
        scale = np.clip(scale, self._scales.min(axis=0), self._scales.max(axis=0))
        return ModelCode(latents=latents.astype(np.float32), scale=scale)

    def _draw_shares(self, generator: np.random.Generator) -> FloatArray:
        """Draw the share of each anchor in a model, ``(anchors,)``; they sum to one."""
        count, kind = self.num_anchors, self.config.kind
        even = np.full(count, 1.0 / count)
        if kind == "model-kde":
            return np.asarray(np.eye(count)[int(generator.integers(count))])
        if kind == "blend":
            return np.asarray(generator.dirichlet(np.full(count, self.config.concentration)))
        if kind == "subspace" and count > 1:
            # Centred normal weights give the sample covariance of the anchors, of rank count - 1.
            weights = generator.standard_normal(count)
            offsets: FloatArray = (weights - weights.mean()) / np.sqrt(count - 1)
            return np.asarray(even + offsets)
        return even


def _spread(values: FloatArray) -> FloatArray:
    """Standard deviation over anchors; of a single one that over its places, the same for all."""
    if len(values) > 1:
        return np.asarray(values.std(axis=0, ddof=1))
    return np.asarray(np.broadcast_to(values[0].std(axis=0), values[0].shape))
