"""Gradient-boosted trees as a probe: what a representation holds beyond straight lines. No I/O.

Trees see the features that ridge sees. How many of them count is chosen on validation, as lambda
is; everything else is fixed, so that no representation gets a better search than another.

Source: scikit-learn's HistGradientBoostingRegressor; METHOD 5 asks for s(W) with boosting.
"""

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.probes import BoolArray, Probe, standardize

FloatArray = NDArray[np.float64]

MAX_TREES = 150
LEARNING_RATE = 0.06
MAX_LEAVES = 8
MIN_LEAF_MODELS = 8
FEATURE_SHARE = 0.3
"""Small trees of few features each: populations are some hundred models, features as many."""


def fit_boosted_probe(
    values: FloatArray,
    truth: FloatArray,
    *,
    train: BoolArray,
    val: BoolArray,
    config: EvaluationConfig,
) -> Probe:
    """Fit boosted trees on training models and predict every model.

    Args:
        values: Raw features, ``(models, features)``, NaN where missing.
        truth: Targets, ``(models,)``, finite on train and val.
        train: Models to fit on.
        val: Models to choose the number of trees on; with too few, all `MAX_TREES` count.
        config: Minimum counts and the seed.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    design = standardize(values, train)
    if design.shape[1] == 0:
        mean = np.full(len(truth), truth[train].mean())
        return Probe(prediction=mean, regularization=0.0, num_features=0, chosen_on="val")
    trees = HistGradientBoostingRegressor(
        max_iter=MAX_TREES,
        learning_rate=LEARNING_RATE,
        max_leaf_nodes=MAX_LEAVES,
        min_samples_leaf=MIN_LEAF_MODELS,
        max_features=FEATURE_SHARE,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=config.seed,
    )
    with threadpool_limits(1):  # some hundred models: a second thread costs more than it does
        trees.fit(design[train], truth[train])
        stages = np.array(list(trees.staged_predict(design)))  # (trees, models)
    best, chosen_on = MAX_TREES - 1, "all trees"
    if int(val.sum()) >= config.min_val_models:
        best = int(np.argmin(((stages[:, val] - truth[val]) ** 2).mean(axis=1)))
        chosen_on = "val"
    return Probe(
        prediction=stages[best],
        regularization=float(best + 1),
        num_features=design.shape[1],
        chosen_on=chosen_on,
    )
