"""Measures of what classifiers do: shared errors, calibration, likeness of features. No I/O.

numpy alone, over all pairs of models at once where there are pairs.
"""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

NUM_CALIBRATION_BINS = 15
"""Of confidence, of equal width. https://arxiv.org/abs/1706.04599 takes 15."""


def kappa_of_errors(wrong: NDArray[np.bool_]) -> Matrix:
    """Cohen's kappa of which rows two models get wrong: agreement beyond that of chance.

    0 for errors that are independent, 1 for the same ones. Two models that both err nowhere (or
    everywhere) agree by chance alone: 0 then, where scikit-learn has no number.

    Args:
        wrong: Whether a model errs ``(models, rows)``.

    Returns:
        ``(models, models)``.
    """
    errs = wrong.astype(np.float64)
    rates = errs.mean(axis=1)
    both = errs @ errs.T / errs.shape[1]
    observed = 1 - rates[:, None] - rates[None, :] + 2 * both
    chance = rates[:, None] * rates[None, :] + (1 - rates[:, None]) * (1 - rates[None, :])
    beyond = 1 - chance
    is_defined = beyond > np.finfo(np.float64).eps
    return np.where(is_defined, (observed - chance) / np.where(is_defined, beyond, 1.0), 0.0)


def agreement(predicted: NDArray[np.integer]) -> Matrix:
    """Share of rows on which two models predict the same label ``(models, models)``.

    Args:
        predicted: Labels ``(models, rows)``.
    """
    same = [(predicted == row).mean(axis=1) for row in predicted]
    return np.stack(same).astype(np.float64)


def calibration_error(probabilities: Matrix, labels: NDArray[np.integer]) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over bins of confidence.

    Args:
        probabilities: ``(rows, classes)``.
        labels: ``(rows,)``.

    Source: https://arxiv.org/abs/1706.04599, equation 3.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, NUM_CALIBRATION_BINS + 1)[1:-1]
    bins = np.digitize(confidence, edges, right=True)
    gaps = np.bincount(bins, weights=right - confidence, minlength=NUM_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def linear_cka(features: list[Matrix]) -> Matrix:
    """Centred kernel alignment of every pair of models' features of the same rows.

    1 for features that are the same up to rotation and scale.

    Args:
        features: Of each model ``(rows, width)``; widths may differ.

    Returns:
        ``(models, models)``.

    Source: https://arxiv.org/abs/1905.00414, section 3, with the linear kernel.
    """
    kernels = []
    for own in features:
        centred = own - own.mean(axis=0)
        kernel = (centred @ centred.T).ravel()
        kernels.append(kernel / max(float(np.linalg.norm(kernel)), np.finfo(np.float64).tiny))
    stacked = np.stack(kernels)
    aligned: Matrix = stacked @ stacked.T
    return aligned
