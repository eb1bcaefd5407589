"""Measures of behaviour agree with scikit-learn where it has them, and with what must hold."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from ws_pipeline.zoo.behaviour import agreement, calibration_error, kappa_of_errors, linear_cka


def test_kappa_is_scikit_learns() -> None:
    wrong = np.random.default_rng(0).random((4, 200)) < np.array([[0.1], [0.3], [0.5], [0.9]])
    found = kappa_of_errors(wrong)
    for one in range(4):
        for other in range(4):
            expected = cohen_kappa_score(wrong[one], wrong[other])
            assert found[one, other] == pytest.approx(expected, abs=1e-12)


def test_models_without_errors_agree_by_chance_alone() -> None:
    assert kappa_of_errors(np.zeros((2, 10), dtype=bool)).tolist() == [[0, 0], [0, 0]]


def test_agreement_is_the_share_of_equal_labels() -> None:
    found = agreement(np.array([[0, 1, 2, 3], [0, 1, 0, 0]]))
    assert found.tolist() == [[1, 0.5], [0.5, 1]]


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    certain = np.tile([0.9, 0.1], (10, 1))
    assert calibration_error(certain, np.zeros(10, dtype=int)) == pytest.approx(0.1)
    assert calibration_error(certain, np.ones(10, dtype=int)) == pytest.approx(0.9)
    assert calibration_error(certain, np.array([0] * 9 + [1])) == pytest.approx(0)
    two_bins = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert calibration_error(two_bins, np.array([0, 1])) == pytest.approx((0.1 + 0.6) / 2)


def test_cka_knows_rotations_and_scales_and_tells_noise_apart() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 5))
    rotation = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    wide = np.concatenate([features, np.zeros((200, 3))], axis=1)
    found = linear_cka(
        [features, 3 * features @ rotation + 7, wide, generator.normal(size=(200, 5))]
    )
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(1)
    assert np.diag(found) == pytest.approx(1)
    assert found[0, 3] < 0.1
