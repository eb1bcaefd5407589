"""What of a layer no permutation of its units changes: singular values, norms, quantiles. No I/O.

Twenty-nine numbers per layer. They are a block of every embedding, pooled over a model's layers.

Source: Martin & Mahoney, Predicting trends in the quality of neural networks, Nature
Communications 12 (2021), https://doi.org/10.1038/s41467-021-24025-8, for norms and ranks; theirs
are averages over layers, ours keep the extremes and the ends. Mean and quantiles as in s(W)
(Unterthiner et al., arXiv 2002.11448), of weights and biases together.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SPECTRUM_NAMES = (
    "log_rms",
    "log_largest",
    "quarter",
    "half",
    "three_quarters",
    "stable_rank",
    "entropy_rank",
    "row_spread",
    "row_largest",
    "column_spread",
    "column_largest",
    "skewness",
    "log_kurtosis",
    *(f"row_{name}" for name in ("least", "first", "median", "third", "most")),
    *(f"column_{name}" for name in ("least", "first", "median", "third", "most")),
    *("mean", "q01", "q25", "q50", "q75", "q99"),
)
"""Numbers of one layer; singular values in units of the largest, ranks of the shorter side. Ten are
logs of the quartiles of the norms of rows and of columns: they grow with the layer's size as well
as with its weights. The last six are of the weights as they are, near zero, and logs beyond one."""

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)

LEAST_NORM = 1e-4
"""Of a row or column, in units of their mean: a unit that is switched off is no outlier."""

MAX_SIDE = 1_024
"""Longest shorter side whose singular values are taken in full: 0.2 s on a Zen 4 core. Of a larger
matrix every n-th row is taken."""

_TINY = 1e-30


def describe_layer(values: FloatArray) -> FloatArray:
    """Return the numbers of `SPECTRUM_NAMES` of a matrix ``(rows, cols)``; a zero one gives zeros.

    Permuting rows or columns changes nothing but rounding, up to `MAX_SIDE`.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest <= _TINY:
        return np.zeros(len(SPECTRUM_NAMES))
    unit = values / largest  # squares of what float64 can hold neither overflow nor vanish
    short = unit if unit.shape[0] <= unit.shape[1] else unit.T
    if short.shape[0] > MAX_SIDE:
        short = short[:: -(-short.shape[0] // MAX_SIDE)]
    singular = singular_values(short)
    square = unit * unit
    rows, columns = np.sqrt(square.sum(axis=1)), np.sqrt(square.sum(axis=0))
    centred = unit - unit.mean()
    score = centred / max(float(centred.std()), _TINY)
    cubed = score * score * score
    return np.array(
        [
            np.log(largest) + 0.5 * np.log(float(square.mean())),
            np.log(largest) + np.log(float(singular[0])),
            *describe_values(singular),
            *_spread(rows),
            *_spread(columns),
            float(cubed.mean()),
            np.log1p(float((cubed * score).mean())),
            *(np.log(largest) + _log_quartiles(rows)),
            *(np.log(largest) + _log_quartiles(columns)),
            *_squash(np.array([unit.mean(), *np.quantile(unit, QUANTILES)]), largest),
        ],
        dtype=np.float64,
    )


def describe_values(singular: FloatArray) -> tuple[float, ...]:
    """Return quartiles, stable rank and entropy rank of singular values, largest first.

    Quartiles are in units of the largest, ranks in units of their number. The entropy rank is the
    exponential of the entropy of the squares (Roy & Vetterli 2007, of the values themselves,
    https://doi.org/10.5281/zenodo.40536).
    """
    energy = singular**2 / max(float((singular**2).sum()), _TINY)
    occupied = energy[energy > 0]
    entropy = float(-(occupied * np.log(occupied)).sum())
    quartiles = np.quantile(singular / max(float(singular[0]), _TINY), (0.25, 0.5, 0.75))
    stable_rank = 1.0 / max(float(energy[0]), _TINY)
    return (
        *quartiles.tolist(),
        stable_rank / len(singular),
        float(np.exp(entropy)) / len(singular),
    )


def singular_values(matrix: FloatArray) -> FloatArray:
    """Return singular values, largest first, from the Gram matrix of the shorter side.

    Four times as fast as a decomposition; values below 1e-8 of the largest are rounding.
    """
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    eigenvalues = np.linalg.eigvalsh(short @ short.T)[::-1]
    return np.asarray(np.sqrt(np.maximum(eigenvalues, 0.0)))


def _spread(norms: FloatArray) -> tuple[float, float]:
    """Return (std / mean, log of largest / mean) of norms."""
    mean = max(float(norms.mean()), _TINY)
    return float(norms.std()) / mean, float(np.log(max(float(norms.max()), _TINY) / mean))


def _log_quartiles(norms: FloatArray) -> FloatArray:
    """Return the logs of least, quartiles and most of norms."""
    floor = LEAST_NORM * max(float(norms.mean()), _TINY)
    return np.asarray(np.log(np.quantile(np.maximum(norms, floor), (0.0, 0.25, 0.5, 0.75, 1.0))))


def _squash(values: FloatArray, unit: float) -> FloatArray:
    """Return sign(x) log(1 + |x|) of x = values * unit."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values) * unit))
