"""What of a layer no permutation of its units changes: singular values and norms. Pure; no I/O.

Thirteen numbers per layer, pooled over a model's layers like its embedding. Two uses: beside s(W)
as the control ``statistics+spectra``, and as a baseline that finds relatives whose hidden units
were reordered.

Source: Martin & Mahoney, Predicting trends in the quality of neural networks, Nature
Communications 12 (2021), https://doi.org/10.1038/s41467-021-24025-8, for norms and ranks; theirs
are averages over layers, ours keep the extremes and the ends.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.errors import Reason
from ws_pipeline.evaluation.features import FLAT_WEIGHTS, SPECTRA, FeatureTable
from ws_pipeline.evaluation.model_weights import LayerMatrix, ReadLayers

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
)
"""Numbers of one layer; singular values in units of the largest, ranks of the shorter side."""

MAX_SIDE = 1_024
"""Longest shorter side whose singular values are taken in full: 0.2 s on a Zen 4 core. Of a larger
matrix every n-th row is taken."""

MAX_FLAT = 262_144
"""Weights beyond which a model is not its own feature vector: 2 MB a model."""

_TINY = 1e-30


def describe_layer(values: FloatArray) -> FloatArray:
    """Return the numbers of `SPECTRUM_NAMES` of a matrix ``(rows, cols)``; a zero one gives zeros.

    Permuting rows or columns changes nothing but rounding, up to `MAX_SIDE`.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest <= _TINY:
        return np.zeros(len(SPECTRUM_NAMES))
    unit = values / largest  # squares of what float64 can hold neither overflow nor vanish
    singular = _singular_values(unit)
    energy = singular**2 / max(float((singular**2).sum()), _TINY)
    shorter = len(singular)
    relative = singular / max(float(singular[0]), _TINY)
    occupied = energy[energy > 0]
    entropy = float(-(occupied * np.log(occupied)).sum())
    centred = unit - unit.mean()
    deviation = max(float(centred.std()), _TINY)
    score = centred / deviation
    return np.array(
        [
            np.log(largest) + 0.5 * np.log(float((unit**2).mean())),
            np.log(largest) + np.log(float(singular[0])),
            *np.quantile(relative, (0.25, 0.5, 0.75)),
            1.0 / max(float(energy[0]), _TINY) / shorter,
            np.exp(entropy) / shorter,
            *_spread(np.linalg.norm(unit, axis=1)),
            *_spread(np.linalg.norm(unit, axis=0)),
            float((score**3).mean()),
            np.log1p(float((score**4).mean())),
        ],
        dtype=np.float64,
    )


def describe_model(layers: Sequence[LayerMatrix]) -> FloatArray:
    """Return mean, std, min, max over layers, then the first and the last layer, as one vector.

    Zeros for a model without layers.
    """
    if not layers:
        return np.zeros(6 * len(SPECTRUM_NAMES))
    table = np.array([describe_layer(layer.values) for layer in layers])
    parts = (table.mean(0), table.std(0), table.min(0), table.max(0), table[0], table[-1])
    return np.concatenate(parts)


def spectral_features(corpus: pl.DataFrame, read_layers: ReadLayers) -> FeatureTable:
    """Return the vectors of all models, in the corpus' order; one model is held at a time."""
    rows = corpus.select("shard_sha256", "layers").iter_rows(named=True)
    vectors = [describe_model(list(read_layers(row))) for row in rows]
    values = np.array(vectors).reshape(len(corpus), 6 * len(SPECTRUM_NAMES))
    return FeatureTable(
        name=SPECTRA,
        values=values,
        available=np.asarray(np.isfinite(values).all(axis=1)),
        missing_reason=Reason.NO_STATISTICS,
    )


def flat_weights(corpus: pl.DataFrame, read_layers: ReadLayers) -> FeatureTable | None:
    """Return all weights of models of equal shapes; None for others or beyond `MAX_FLAT`."""
    plan = (pl.element().struct.field(name) for name in ("name", "rows", "cols"))
    plans = corpus.select(
        pl.col("layers").list.eval(pl.concat_str(plan, separator=" ")).alias("plan")
    )
    num_params = corpus["num_values"].unique()
    if not len(corpus) or plans.n_unique() > 1 or len(num_params) > 1 or num_params[0] > MAX_FLAT:
        return None
    rows = corpus.select("shard_sha256", "layers").iter_rows(named=True)
    values = np.array([np.concatenate([m.values.ravel() for m in read_layers(r)]) for r in rows])
    return FeatureTable(
        name=FLAT_WEIGHTS, values=values, available=np.asarray(np.isfinite(values).all(axis=1))
    )


def _singular_values(matrix: FloatArray) -> FloatArray:
    """Return singular values, largest first, from the Gram matrix of the shorter side."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if short.shape[0] > MAX_SIDE:
        short = short[:: -(-short.shape[0] // MAX_SIDE)]
    eigenvalues = np.linalg.eigvalsh(short @ short.T)[::-1]
    return np.asarray(np.sqrt(np.maximum(eigenvalues, 0.0)))


def _spread(norms: FloatArray) -> tuple[float, float]:
    """Return (std / mean, log of largest / mean) of norms."""
    mean = max(float(norms.mean()), _TINY)
    return float(norms.std()) / mean, float(np.log(max(float(norms.max()), _TINY) / mean))
