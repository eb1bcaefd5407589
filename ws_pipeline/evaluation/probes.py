"""Ridge probe: standardise on training models, choose lambda on validation, predict. Pure; no I/O.

The probe is fitted on the training split alone and is not refitted on train + val after lambda is
chosen: the numbers stay comparable with the papers', and val stays out of every fit. With too few
validation models lambda comes from cross-validation over training lineages instead.

Source: SANE, arXiv 2406.09997, appendix: linear probes in closed form. One SVD serves all lambdas;
a test holds the predictions equal to scikit-learn's Ridge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.evaluation.config import EvaluationConfig

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# A held-out model of another order of magnitude would otherwise decide R^2 alone by linear
# extrapolation. Ten training standard deviations leave every regular value as it is.
MAX_Z_SCORE = 10.0

FIRST_SHARES = (0.0, 0.1, 0.3, 1.0)
"""Spread of the first block over that of the second; the least of equals is taken."""

_MIN_STD = 1e-12
_MAX_FOLDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A fitted probe's predictions and how it came about.

    Attributes:
        prediction: For every model that came in, ``(models,)``.
        regularization: The lambda that was chosen; 0 where there was nothing to fit.
        num_features: Columns that vary over the training models.
        chosen_on: ``val`` or ``train folds``.
    """

    prediction: FloatArray
    regularization: float
    num_features: int
    chosen_on: str


def fit_probe(
    values: FloatArray,
    truth: FloatArray,
    *,
    train: BoolArray,
    val: BoolArray,
    lineages: Sequence[str],
    config: EvaluationConfig,
    num_first: int = 0,
) -> Probe:
    """Fit a ridge probe on training models and predict every model.

    Of two blocks of features each gets its own penalty, as in banded ridge: hundreds of columns
    that say little would otherwise drown a few that say much (docs/experiments.md).

    Args:
        values: Raw features, ``(models, features)``, NaN where missing.
        truth: Targets, ``(models,)``, finite on train and val.
        train: Models to fit on.
        val: Models to choose lambda on.
        lineages: Lineage of each model: folds never cut one.
        config: Lambdas and minimum counts.
        num_first: Columns of the first of two blocks; 0 for one block.

    Source: banded ridge regression, Nunez-Elizalde et al., NeuroImage 197 (2019).
    """
    second = standardize(values[:, num_first:], train)
    if num_first == 0:
        return _fit_design(second, truth, train, val, lineages, config)[0]
    first = standardize(values[:, :num_first], train)
    equal = (max(second.shape[1], 1) / max(first.shape[1], 1)) ** 0.5
    fits = [
        _fit_design(np.hstack([share * equal * first, second]), truth, train, val, lineages, config)
        for share in FIRST_SHARES
    ]
    return min(fits, key=lambda fit: fit[1])[0]


def _fit_design(  # noqa: PLR0917 - what fit_probe was given, with the design in place of values
    design: FloatArray,
    truth: FloatArray,
    train: BoolArray,
    val: BoolArray,
    lineages: Sequence[str],
    config: EvaluationConfig,
) -> tuple[Probe, float]:
    """Return the probe of the best lambda, and the error by which it was chosen."""
    if design.shape[1] == 0:
        mean = np.full(len(truth), truth[train].mean())
        probe = Probe(prediction=mean, regularization=0.0, num_features=0, chosen_on="val")
        return probe, float("inf")
    lambdas = np.asarray(config.lambdas)
    paths = ridge_path(design[train], truth[train], design, lambdas)
    if int(val.sum()) >= config.min_val_models:
        errors = ((paths[:, val] - truth[val]) ** 2).mean(axis=1)
        chosen_on = "val"
    else:
        codes = np.unique(np.asarray(lineages, dtype=str), return_inverse=True)[1]
        errors = _fold_errors(design[train], truth[train], codes[train], lambdas)
        chosen_on = "train folds"
    best = len(lambdas) - 1 - int(np.argmin(errors[::-1]))  # of equals, the strongest penalty
    probe = Probe(
        prediction=paths[best],
        regularization=float(lambdas[best]),
        num_features=design.shape[1],
        chosen_on=chosen_on,
    )
    return probe, float(errors[best])


def standardize(values: FloatArray, reference: BoolArray) -> FloatArray:
    """Return columns with mean 0 and std 1 over the reference models; missing becomes the mean.

    Columns that do not vary over the reference models are dropped.
    """
    known = np.isfinite(values)
    safe = np.where(known, values, 0.0)
    count = np.maximum(known[reference].sum(axis=0), 1)
    mean = safe[reference].sum(axis=0) / count
    centred = np.where(known, safe - mean, 0.0)
    std = np.sqrt((centred[reference] ** 2).sum(axis=0) / count)
    varies = std > _MIN_STD * np.maximum(1.0, np.abs(mean))
    scores: FloatArray = centred[:, varies] / std[varies]
    return scores.clip(-MAX_Z_SCORE, MAX_Z_SCORE)


def ridge_path(
    design: FloatArray, truth: FloatArray, queries: FloatArray, lambdas: FloatArray
) -> FloatArray:
    """Return ridge predictions for every lambda, with an intercept that is not penalised.

    Returns:
        Predictions of shape ``(lambdas, queries)``.
    """
    centre, offset = design.mean(axis=0), truth.mean()
    left, singular, right = np.linalg.svd(design - centre, full_matrices=False)
    shrinkage = singular / (singular**2 + lambdas[:, None])  # (lambdas, rank)
    coefficients = shrinkage * (left.T @ (truth - offset))
    return np.asarray(offset + coefficients @ (right @ (queries - centre).T))


def _fold_errors(
    design: FloatArray, truth: FloatArray, lineages: NDArray[np.int64], lambdas: FloatArray
) -> FloatArray:
    """Return the mean squared error of every lambda over folds of whole lineages."""
    from sklearn.model_selection import GroupKFold

    num_folds = min(_MAX_FOLDS, len(np.unique(lineages)))
    if num_folds < 2:
        return np.zeros(len(lambdas))  # nothing to choose by: the strongest penalty
    errors = np.zeros(len(lambdas))
    for fit, check in GroupKFold(num_folds).split(design, truth, lineages):
        path = ridge_path(design[fit], truth[fit], design[check], lambdas)
        errors += ((path - truth[check]) ** 2).sum(axis=1)
    return errors / len(truth)
