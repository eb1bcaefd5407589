"""Summaries of the singular values of a model's weight matrices. numpy; no I/O.

A matrix whose shorter side is beyond ``MAX_SIDE`` is left out. A convolution counts as the matrix
of its outputs by everything else, as in METHOD's layers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.weights.spectra import MAX_SIDE, singular_values


def spectral_summaries(weights: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, str, float]]:
    """Yield (tensor, summary, value) of every matrix that is not all zero.

    ``spectral_norm`` is the largest singular value, ``stable_rank`` the squared Frobenius over the
    squared spectral norm, ``effective_rank`` the exponential of the entropy of the singular values
    (Roy and Vetterli 2007, https://doi.org/10.5281/zenodo.40536).
    """
    for name, array in weights.items():
        if array.dtype.kind != "f" or array.ndim < 2:
            continue
        matrix = array.reshape(len(array), -1).astype(np.float64)
        if min(matrix.shape) > MAX_SIDE or not np.isfinite(matrix).all() or not matrix.any():
            continue
        values = singular_values(matrix)
        shares = values[values > 0] / values.sum()
        yield name, "spectral_norm", float(values[0])
        yield name, "stable_rank", float((values**2).sum() / values[0] ** 2)
        yield name, "effective_rank", float(np.exp(-(shares * np.log(shares)).sum()))
