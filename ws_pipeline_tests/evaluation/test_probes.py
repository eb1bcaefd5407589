import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.probes import MAX_Z_SCORE, fit_probe, ridge_path, standardize


@pytest.mark.parametrize("shape", [(40, 5), (20, 60)])
def test_every_point_of_the_path_is_scikit_learns_ridge(shape):
    rng = np.random.default_rng(0)
    design, queries = rng.normal(size=shape), rng.normal(size=(7, shape[1]))
    truth = design[:, 0] + rng.normal(size=shape[0]) + 3.0
    lambdas = np.array([1e-2, 1.0, 1e3])
    got = ridge_path(design, truth, queries, lambdas)
    for row, penalty in zip(got, lambdas, strict=True):
        np.testing.assert_allclose(row, Ridge(alpha=penalty).fit(design, truth).predict(queries))


def test_scaling_sees_reference_models_only_and_drops_what_does_not_vary_there():
    values = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, 2.0], [1e9, 6.0, 4.0]])
    reference = np.array([True, True, False])
    scaled = standardize(values, reference)
    assert scaled.tolist() == [[-1.0], [1.0], [MAX_Z_SCORE]]


def test_a_missing_value_is_the_training_mean():
    values = np.array([[0.0], [2.0], [np.nan]])
    assert standardize(values, np.array([True, True, True]))[2, 0] == 0.0


def test_a_probe_on_noise_chooses_to_predict_the_mean():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=200)
    train, val = np.arange(200) < 100, (np.arange(200) >= 100) & (np.arange(200) < 150)
    probe = fit_probe(
        rng.normal(size=(200, 50)),
        truth,
        train=train,
        val=val,
        lineages=[str(i) for i in range(200)],
        config=EvaluationConfig(),
    )
    assert probe.regularization >= 1e2
    assert np.std(probe.prediction) < 0.5


def test_with_few_validation_models_lambda_comes_from_whole_training_lineages():
    rng = np.random.default_rng(2)
    # All is equal within a lineage: folds that cut lineages would see no harm in overfitting.
    lineage = np.repeat(np.arange(30), 4)
    values = rng.normal(size=(30, 40))[lineage]
    truth = rng.normal(size=30)[lineage]
    probe = fit_probe(
        values,
        truth,
        train=lineage < 25,
        val=np.zeros(120, bool),
        lineages=lineage.astype(str).tolist(),
        config=EvaluationConfig(),
    )
    assert probe.chosen_on == "train folds"
    assert probe.regularization >= 1e2


def test_without_features_the_probe_is_the_training_mean():
    truth = np.array([1.0, 3.0, 100.0])
    mask = np.array([True, True, False])
    probe = fit_probe(
        np.zeros((3, 0)),
        truth,
        train=mask,
        val=~mask,
        lineages=["a", "b", "c"],
        config=EvaluationConfig(),
    )
    assert probe.prediction.tolist() == [2.0, 2.0, 2.0]


def test_a_block_that_says_nothing_does_not_drown_one_that_does():
    rng = np.random.default_rng(7)
    noise, signal = rng.normal(size=(200, 400)), rng.normal(size=(200, 4))
    truth = signal @ np.array([1.0, -1.0, 0.5, 2.0]) + 0.3 * rng.normal(size=200)
    train, val = np.arange(200) < 100, (np.arange(200) >= 100) & (np.arange(200) < 140)
    arguments = {
        "train": train, "val": val, "lineages": [str(row) for row in range(200)],
        "config": EvaluationConfig(),
    }  # fmt: skip
    values = np.hstack([noise, signal])
    errors = [
        float(((probe.prediction - truth)[140:] ** 2).mean())
        for probe in (
            fit_probe(values, truth, num_first=num_first, **arguments) for num_first in (0, 400)
        )
    ]
    assert errors[1] < 0.3 * errors[0]
    alone = fit_probe(signal, truth, **arguments)
    assert errors[1] < 1.5 * float(((alone.prediction - truth)[140:] ** 2).mean())
