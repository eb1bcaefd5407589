"""Running statistics are really estimated anew, and selection keeps what validation likes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.errors import ConfigError
from ws_pipeline.generation.config import DensityConfig, SelectionConfig
from ws_pipeline.generation.generator import Generator
from ws_pipeline.generation.scoring import ScoredModel, Scorer
from ws_pipeline.generation.selection import keep_best, select_models
from ws_pipeline.generation.template import Template, Weights
from ws_pipeline.zoo.config import GridConfig
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.grid import plan_population
from ws_pipeline.zoo.training import initial_state

PLAN = plan_population(
    GridConfig(
        name="cnn",
        architecture="cnn",
        dataset="digits",
        sizes={"channels": (4, 6, 8), "hidden_size": 16},
    ),
    None,
)[0]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(PLAN, load_dataset("digits"))


def spoil(weights: Weights) -> dict[str, np.ndarray]:
    """Give a model running statistics that belong to no one."""
    return {
        name: array + 3.0 if name.endswith("running_mean") else array
        for name, array in weights.items()
    }


def test_reestimation_changes_statistics_and_brings_accuracy_back(
    scorer: Scorer, repos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = Template.open(repos[0])
    honest = scorer.score(weights)
    spoiled = scorer.score(spoil(weights))
    assert spoiled.accuracy == honest.accuracy > 0.5
    assert spoiled.loss == pytest.approx(honest.loss)
    moved = spoiled.weights["bn1.running_mean"]
    assert not np.allclose(moved, spoil(weights)["bn1.running_mean"])
    np.testing.assert_allclose(moved, weights["bn1.running_mean"], atol=0.3)
    np.testing.assert_array_equal(spoiled.weights["conv1.weight"], weights["conv1.weight"])
    # The same without it: what released samplers hand out.
    monkeypatch.setattr("ws_pipeline.generation.scoring.reestimate_norms", lambda *_: None)
    assert scorer.score(spoil(weights)).accuracy < honest.accuracy - 0.2


def test_a_state_is_what_training_starts_from(scorer: Scorer, repos: list[Path]) -> None:
    _, weights = Template.open(repos[0])
    child = replace(PLAN, model_id="child", parent=replace(PLAN, model_id="start"))
    state = initial_state(child, load_dataset("digits"), scorer.to_state(weights))
    assert state.keys() == weights.keys()
    assert all(np.array_equal(state[name].numpy(), weights[name]) for name in weights)


def test_predictions_are_one_per_label(scorer: Scorer, repos: list[Path]) -> None:
    _, weights = Template.open(repos[0])
    predictions, labels = scorer.predict(scorer.score(weights).weights), scorer.test_labels()
    assert predictions.shape == labels.shape
    assert float((predictions == labels).double().mean()) > 0.5


def test_the_best_are_kept_by_accuracy_and_then_loss() -> None:
    models = [
        ScoredModel(weights={}, loss=loss, accuracy=accuracy)
        for loss, accuracy in ((1.0, 0.5), (2.0, 0.9), (1.5, 0.9), (float("inf"), 0.9))
    ]
    assert [model.loss for model in keep_best(models, 3)] == [1.5, 2.0, float("inf")]


def test_rounds_never_make_it_worse_and_beat_the_mean_of_draws(
    scorer: Scorer, repos: list[Path], backbone: Backbone
) -> None:
    opened = [Template.open(repo) for repo in repos]
    template, anchors = opened[0][0], [weights for _, weights in opened]
    density = DensityConfig(kind="model-kde", bandwidth=0.3)

    def draw(chosen: object, num: int, seed: int) -> list[Weights]:
        return Generator(backbone, template, chosen, density).draw(num, seed=seed)  # type: ignore[arg-type]

    def best(rounds: int) -> list[ScoredModel]:
        config = SelectionConfig(num_candidates=6, num_kept=2, num_rounds=rounds)
        return select_models(draw, anchors, scorer, config, seed=0)

    once, thrice = best(1), best(3)
    assert len(once) == len(thrice) == 2
    assert thrice[0].accuracy >= once[0].accuracy
    draws = [scorer.score(weights).accuracy for weights in draw(anchors, 6, 0)]
    assert once[0].accuracy == max(draws)


def test_a_selection_that_keeps_more_than_it_draws_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_kept must lie in \[1, 5\], got 6"):
        SelectionConfig(num_candidates=5, num_kept=6)
