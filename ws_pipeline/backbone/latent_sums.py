"""Running sums over the token latents of one model's layers, and what is read off them. No I/O.

Two readings: mean and standard deviation, and the spectrum of the second moments. The means depend
on the order in which the units of a layer lie; the spectrum depends on it little, since a rotation
of the latents changes nothing.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.spectra import describe_values

FloatArray = npt.NDArray[np.float64]

LATENT_NAMES = (
    "quarter",
    "half",
    "three_quarters",
    "stable_rank",
    "entropy_rank",
    "log_rms",
    "log_spread",
    "mean_share",
    "norm_spread",
)
"""Numbers of one layer's latents: of the singular values of their covariance; then root mean
square, standard deviation, share of the mean in the square, spread of the squared norms."""

_TINY = 1e-12


@dataclass(kw_only=True, slots=True)
class LatentSums:
    """Sums in float64.

    Attributes:
        count: ``(layers,)``.
        total: ``(layers, latent_size)``.
        product: Sum of outer products, ``(layers, latent_size, latent_size)``.
        fourth: Sum of the fourth powers of the norms, ``(layers,)``.
    """

    count: FloatArray
    total: FloatArray
    product: FloatArray
    fourth: FloatArray

    @classmethod
    def zeros(cls, num_layers: int, latent_size: int) -> "LatentSums":
        """Return sums over nothing."""
        return cls(
            count=np.zeros(num_layers),
            total=np.zeros((num_layers, latent_size)),
            product=np.zeros((num_layers, latent_size, latent_size)),
            fourth=np.zeros(num_layers),
        )

    def add(self, layer: npt.NDArray[np.int64], latents: FloatArray) -> None:
        """Add latents ``(tokens, latent_size)`` of the layers ``(tokens,)``, in ascending order."""
        bounds = np.flatnonzero(np.diff(layer, prepend=-1, append=-1)).tolist()
        for start, stop in pairwise(bounds):
            index, part = int(layer[start]), latents[start:stop]
            self.count[index] += stop - start
            self.total[index] += part.sum(axis=0)
            self.product[index] += part.T @ part
            self.fourth[index] += float((np.einsum("ij,ij->i", part, part) ** 2).sum())

    def moments(self) -> FloatArray:
        """Return (mean, std) of each layer, ``(layers, 2 * latent_size)``."""
        number = np.maximum(self.count[:, None], 1.0)
        mean = self.total / number
        square = np.einsum("lii->li", self.product) / number
        return np.concatenate((mean, np.sqrt(np.maximum(square - mean**2, 0.0))), axis=-1)

    def spectra(self) -> FloatArray:
        """Return the numbers of `LATENT_NAMES` of each layer, ``(layers, 9)``."""
        number = np.maximum(self.count, 1.0)
        mean = self.total / number[:, None]
        moments = self.product / number[:, None, None]
        size = moments.shape[-1]
        rows = []
        for centre, moment, fourth in zip(mean, moments, self.fourth / number, strict=True):
            square = max(float(np.trace(moment)), _TINY)
            covariance = moment - np.outer(centre, centre)
            values = np.linalg.eigvalsh(covariance)[::-1].clip(min=0.0)
            alike = values[0] <= _TINY * square  # one token, or the same latent of all
            numbers = (0.0,) * 5 if alike else describe_values(np.sqrt(values))
            share = float(centre @ centre) / square
            rows.append(
                (
                    *numbers,
                    0.5 * np.log(square / size),
                    0.5 * np.log(max(1.0 - share, _TINY**0.5)),
                    share,
                    np.sqrt(max(fourth / square**2 - 1.0, 0.0)),
                )
            )
        return np.array(rows, dtype=np.float64).reshape(-1, len(LATENT_NAMES))
