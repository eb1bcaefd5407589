"""Intervals by resampling lineages. Pure; randomness is an argument.

Checkpoints of one run and fine-tunes of one base are correlated, so the unit that is drawn with
replacement is the lineage, never the model: resampling models would make intervals too narrow. A
resample is a row of counts (how often each model was drawn), and every statistic is arithmetic over
counts, so that all resamples of a statistic are a few matrix products: a thousand resamples of
Kendall's tau over 50 models take 3 ms here and 300 ms with a call of scipy for each.
Point estimates come from scikit-learn and scipy; tests hold the two equal on the same draws.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.evaluation.results import NOT_MEASURED, Score

FloatArray = NDArray[np.float64]

# With fewer defined draws than this share, an interval says more about the draws than the score.
_MIN_DEFINED_SHARE = 0.5

# A spread below this share of the values' own size is rounding, not variation.
_RELATIVE_ZERO = 1e-12


def draw_lineage_counts(
    lineages: Sequence[str], num_bootstrap: int, generator: np.random.Generator
) -> FloatArray:
    """Return how often each model appears in each resample of lineages.

    Returns:
        Counts of shape ``(num_bootstrap, models)``.
    """
    _, codes = np.unique(np.asarray(lineages, dtype=str), return_inverse=True)
    num_lineages = int(codes.max()) + 1 if len(codes) else 0
    if num_lineages == 0:
        return np.zeros((num_bootstrap, 0))
    shares = np.full(num_lineages, 1.0 / num_lineages)
    draws = generator.multinomial(num_lineages, shares, size=num_bootstrap)
    return draws[:, codes].astype(np.float64)


def resample_means(values: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the mean of each resample, shape ``(num_bootstrap,)``."""
    return np.asarray(counts @ values / counts.sum(axis=1))


def resample_medians(values: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the median of each resample, shape ``(num_bootstrap,)``."""
    order = np.argsort(values)
    cumulative = np.cumsum(counts[:, order], axis=1)
    total = cumulative[:, -1]
    below = (cumulative > np.floor((total - 1) / 2)[:, None]).argmax(axis=1)
    above = (cumulative > np.floor(total / 2)[:, None]).argmax(axis=1)
    ordered = values[order]
    return np.asarray((ordered[below] + ordered[above]) / 2)


def resample_r2(truth: FloatArray, prediction: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the coefficient of determination of each resample; NaN where truth is constant."""
    centred = truth - truth.mean()
    total = counts @ centred**2 - (counts @ centred) ** 2 / counts.sum(axis=1)
    residual = counts @ (truth - prediction) ** 2
    scale = float(np.max(np.abs(truth), initial=0.0)) ** 2
    defined = total > _RELATIVE_ZERO * max(scale, np.finfo(np.float64).tiny)
    return np.asarray(np.where(defined, 1.0 - residual / np.where(defined, total, 1.0), np.nan))


def resample_tau(truth: FloatArray, prediction: FloatArray, counts: FloatArray) -> FloatArray:
    """Return Kendall's tau-b of each resample; NaN where either side is constant."""
    first = np.sign(truth[:, None] - truth[None, :])
    second = np.sign(prediction[:, None] - prediction[None, :])
    concordance = _quadratic(counts, first * second)
    spread = _quadratic(counts, np.abs(first)) * _quadratic(counts, np.abs(second))
    defined = spread > 0
    return np.asarray(
        np.where(defined, concordance / np.sqrt(np.where(defined, spread, 1.0)), np.nan)
    )


def _quadratic(counts: FloatArray, matrix: FloatArray) -> FloatArray:
    """Return ``c' M c`` for every row c of the counts."""
    return np.asarray(np.einsum("bm,bm->b", counts @ matrix, counts))


def score_r2(truth: FloatArray, prediction: FloatArray) -> float:
    """Return R^2 as scikit-learn defines it; NaN where truth is constant."""
    from sklearn.metrics import r2_score

    if np.ptp(truth) <= _RELATIVE_ZERO * np.max(np.abs(truth), initial=0.0):
        return float("nan")
    return float(r2_score(truth, prediction))


def score_tau(truth: FloatArray, prediction: FloatArray) -> float:
    """Return Kendall's tau-b as scipy defines it; NaN where either side is constant."""
    from scipy.stats import kendalltau

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input; we return its NaN
        return float(kendalltau(truth, prediction).statistic)


def with_interval(value: float, resamples: FloatArray, confidence: float) -> Score:
    """Return a value with the percentile interval of its resamples.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    if not np.isfinite(value):
        return NOT_MEASURED
    defined = resamples[np.isfinite(resamples)]
    if len(defined) == 0 or len(defined) < _MIN_DEFINED_SHARE * len(resamples):
        return Score(value=value)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Score(value=value, low=float(low), high=float(high))


PairMetric = Callable[[FloatArray, FloatArray], float]
PairResampler = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

PREDICTION_METRICS: dict[str, tuple[PairMetric, PairResampler]] = {
    "r2": (score_r2, resample_r2),
    "kendall_tau": (score_tau, resample_tau),
}
"""Metrics of a prediction: the point estimate, and the same statistic over resamples."""
