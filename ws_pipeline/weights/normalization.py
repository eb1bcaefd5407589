"""Scales of layers: the exact power of two that is taken out on disk, and mean/std for the loss.

Two pairs of inverses. ``scale_layer``/``unscale_layer`` move a layer's binary exponent so that its
standard deviation is near 1; that is exact to the bit or not done at all. ``normalize_layer``/
``denormalize_layer`` subtract the mean and divide by the standard deviation in float64; they are
exact to rounding. What they remove travels with the token as (mean, log std). No I/O.
"""

from functools import lru_cache
from math import isfinite, log, log2
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.dtypes import widen

MIN_STD = 2.0**-24
"""Below this spread a layer counts as constant: the resolution of float32 around 1. Dividing by the
floor instead keeps a constant layer at zero and its log std at -16.6 rather than minus infinity."""


_MAX_FACTOR_EXPONENT = 126
"""Up to here 2 to this power and its inverse are normal float32 numbers."""


def choose_scale_exponent(std: float) -> int:
    """Return the power of two nearest to a standard deviation; 0 for a constant layer."""
    return round(log2(std)) if std > 0.0 and isfinite(std) else 0


def scale_layer(values: npt.NDArray[Any], exponent: int) -> tuple[npt.NDArray[Any], int]:
    """Multiply by ``2**-exponent`` in the values' own dtype, if that loses no bit.

    Returns:
        The scaled values and ``exponent``; or the values themselves and 0 where a value would
        leave the range of normal numbers.
    """
    if exponent == 0:
        return values, 0
    scaled = _shift_exponent(values, -exponent)
    restored = _shift_exponent(scaled, exponent)
    if np.array_equal(_bits(restored), _bits(values)):
        return scaled, exponent
    return values, 0


def scale_in_place(values: npt.NDArray[Any], exponent: int) -> None:
    """Multiply contiguous values by ``2**-exponent``, bit for bit as :func:`scale_layer` does.

    Whether that is exact has to be known: see :func:`is_scaling_exact`.
    """
    if exponent == 0:
        return
    if values.dtype.itemsize <= 2:
        bits = values.view(f"u{values.dtype.itemsize}")
        np.take(_scaled_table(values.dtype, exponent), bits, out=bits, mode="clip")
    elif abs(exponent) <= _MAX_FACTOR_EXPONENT:
        np.multiply(values, values.dtype.type(2.0**-exponent), out=values)
    else:
        values[...] = _shift_exponent(values, -exponent)


def is_scaling_exact(
    dtype: np.dtype[Any], exponents: npt.NDArray[Any] | int, largest: npt.NDArray[Any] | float
) -> npt.NDArray[np.bool_]:
    """Say for each layer whether scaling loses no bit of any value up to ``largest`` in magnitude.

    False means only that it is not certain. Scaled up, a value keeps all its bits unless it
    overflows; scaled down, it may lose its last ones below the smallest normal number.
    """
    steps = np.asarray(exponents, dtype=np.float64)
    limits = _largest(dtype) * np.exp2(np.minimum(steps, 0))
    exact: npt.NDArray[np.bool_] = np.asarray((steps <= 0) & np.less_equal(largest, limits))
    return exact


def unscale_layer(values: npt.NDArray[Any], exponent: int) -> npt.NDArray[Any]:
    """Multiply by ``2**exponent``, the exact inverse of :func:`scale_layer`, in the same dtype."""
    return values if exponent == 0 else _shift_exponent(values, exponent)


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


@lru_cache(maxsize=16)
def _largest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=64)
def _scaled_table(dtype: np.dtype[Any], exponent: int) -> npt.NDArray[Any]:
    """Return the scaled value of every bit pattern of an 8- or 16-bit type, as bits.

    A table takes a fifth of the time of widening to float32 and narrowing again.
    """
    bits = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    with np.errstate(invalid="ignore"):
        return _bits(_shift_exponent(bits.view(dtype), -exponent))


def _shift_exponent(values: npt.NDArray[Any], exponent: int) -> npt.NDArray[Any]:
    wide = widen(values)
    with np.errstate(over="ignore", under="ignore"):
        shifted: npt.NDArray[Any] = np.ldexp(wide, exponent).astype(values.dtype, copy=False)
    return shifted


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")
