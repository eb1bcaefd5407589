import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import r2_score

from ws_pipeline.evaluation import bootstrap


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = np.round(rng.normal(size=40), 1)  # with ties
    prediction = np.round(truth + rng.normal(size=40), 1)
    lineages = [f"l{i // 2}" for i in range(40)]
    return truth, prediction, bootstrap.draw_lineage_counts(lineages, 25, rng)


def draw(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.repeat(values, counts.astype(int))


def test_resampled_r2_is_scikit_learns_r2_of_the_same_draw(sample):
    truth, prediction, counts = sample
    got = bootstrap.resample_r2(truth, prediction, counts)
    expected = [r2_score(draw(truth, c), draw(prediction, c)) for c in counts]
    np.testing.assert_allclose(got, expected, atol=1e-10)


def test_resampled_tau_is_scipys_tau_b_of_the_same_draw_with_ties(sample):
    truth, prediction, counts = sample
    got = bootstrap.resample_tau(truth, prediction, counts)
    expected = [kendalltau(draw(truth, c), draw(prediction, c)).statistic for c in counts]
    np.testing.assert_allclose(got, expected, atol=1e-10)


def test_resampled_means_and_medians_are_numpys_of_the_same_draw(sample):
    truth, _, counts = sample
    means, medians = (
        f(truth, counts) for f in (bootstrap.resample_means, bootstrap.resample_medians)
    )
    np.testing.assert_allclose(means, [draw(truth, c).mean() for c in counts])
    np.testing.assert_allclose(medians, [np.median(draw(truth, c)) for c in counts])


def test_models_of_one_lineage_are_drawn_together():
    counts = bootstrap.draw_lineage_counts(["a", "b", "a", "c"], 50, np.random.default_rng(0))
    assert counts.shape == (50, 4)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_resampling_lineages_gives_wider_intervals_than_resampling_correlated_models():
    rng = np.random.default_rng(1)
    lineages = np.repeat(np.arange(20), 10)
    values = np.repeat(rng.normal(size=20), 10) + 0.01 * rng.normal(size=200)
    widths = []
    for names in (lineages.astype(str), np.arange(200).astype(str)):
        counts = bootstrap.draw_lineage_counts(names.tolist(), 400, rng)
        score = bootstrap.with_interval(0.0, bootstrap.resample_means(values, counts), 0.95)
        widths.append(score.high - score.low)
    assert widths[0] > 2 * widths[1]


def test_intervals_cover_the_truth_about_as_often_as_they_promise():
    rng = np.random.default_rng(5)
    covered, trials = 0, 300
    for _ in range(trials):
        values = np.repeat(rng.normal(size=40), 3) + 0.1 * rng.normal(size=120)
        lineages = np.repeat(np.arange(40), 3).astype(str).tolist()
        counts = bootstrap.draw_lineage_counts(lineages, 300, rng)
        resamples = bootstrap.resample_means(values, counts)
        score = bootstrap.with_interval(float(values.mean()), resamples, 0.95)
        covered += score.low <= 0.0 <= score.high
    assert 0.90 <= covered / trials <= 0.98


def test_constant_truth_or_prediction_is_not_measured_rather_than_zero():
    ones, line = np.ones(10), np.arange(10.0)
    counts = np.ones((4, 10))
    assert np.isnan(bootstrap.score_r2(ones * 0.1, line))
    assert np.isnan(bootstrap.score_tau(line, ones))
    assert np.isnan(bootstrap.resample_r2(ones * 0.1, line, counts)).all()
    assert np.isnan(bootstrap.resample_tau(line, ones, counts)).all()
    assert bootstrap.with_interval(float("nan"), line, 0.95).value is None


def test_a_mostly_undefined_bootstrap_gives_no_interval():
    resamples = np.array([0.5, np.nan, np.nan, np.nan])
    score = bootstrap.with_interval(0.5, resamples, 0.95)
    assert (score.value, score.low, score.high) == (0.5, None, None)
