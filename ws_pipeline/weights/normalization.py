"""The scale of a layer, for the loss: mean and standard deviation taken out, and put back. No I/O.

``normalize_layer``/``denormalize_layer`` are inverses up to rounding, in float64. What they remove
travels with the token as (mean, log std). On disk nothing is scaled: there the weights are exact.
"""

from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.dtypes import widen

MIN_STD = 2.0**-24
"""Below this spread a layer counts as constant: the resolution of float32 around 1. Dividing by the
floor instead keeps a constant layer at zero and its log std at -16.6 rather than minus infinity."""


def normalize_layer(values: npt.NDArray[Any], mean: float, std: float) -> npt.NDArray[np.float64]:
    """Return ``(values - mean) / max(std, MIN_STD)`` in float64."""
    normalized: npt.NDArray[np.float64] = widen(values).astype(np.float64)
    normalized -= mean
    normalized /= max(std, MIN_STD)
    return normalized


def denormalize_layer(
    values: npt.NDArray[np.float64], mean: float, std: float
) -> npt.NDArray[np.float64]:
    """Undo :func:`normalize_layer`; float64, to be cast to the layer's dtype."""
    restored: npt.NDArray[np.float64] = values * max(std, MIN_STD)
    restored += mean
    return restored


def log_std(std: float) -> float:
    """Return the natural log of a layer's spread, floored at :data:`MIN_STD`."""
    return log(max(std, MIN_STD))
