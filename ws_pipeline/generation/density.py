"""Densities over the codes of anchors, and draws from them. Pure; randomness is an argument.

Every draw is a mixture of anchors plus noise (``config`` has the kinds). Noise is drawn for each
number of each token on its own (the released samplers use one random state for all tokens), and its
size is relative to the anchors' spread at that place (theirs is one absolute bandwidth).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ws_pipeline.generation.codes import ModelCode
from ws_pipeline.generation.config import DensityConfig

FloatArray = npt.NDArray[np.float64]


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

    def draw(self, generator: np.random.Generator, *, followed: int | None = None) -> ModelCode:
        """Draw one model's code.

        Args:
            generator: Of the draw.
            followed: The anchor that a draw of `model-kde` is near; drawn where None.
        """
        model_shares = self._draw_shares(generator, followed)
        if self.config.kind == "token-kde":
            num_tokens = self._latents.shape[1]
            sources = generator.integers(self.num_anchors, size=num_tokens)
            latents = self._latents[sources, np.arange(num_tokens)]
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

    def _draw_shares(self, generator: np.random.Generator, followed: int | None) -> FloatArray:
        """Draw the share of each anchor in a model, ``(anchors,)``; they sum to one."""
        count, kind = self.num_anchors, self.config.kind
        even = np.full(count, 1.0 / count)
        if kind == "model-kde":
            drawn = int(generator.integers(count))
            return np.asarray(np.eye(count)[drawn if followed is None else followed])
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
