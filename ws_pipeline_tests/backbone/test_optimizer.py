import itertools
from dataclasses import replace

import pytest
import torch

from ws_pipeline.backbone.config import TrainingConfig
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.optimizer import build_optimizer, cosine, learning_rate, one_cycle
from ws_pipeline_tests.backbone.tiny_corpus import TINY


@pytest.mark.parametrize("num_steps", [10, 137])
def test_one_cycle_is_torchs(num_steps: int):
    config = TrainingConfig(num_steps=num_steps, learning_rate=3e-3, warmup_fraction=0.3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=num_steps, pct_start=0.3, cycle_momentum=False
    )
    for step in range(num_steps):
        assert one_cycle(step, config) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step + 1 < num_steps:
            theirs.step()


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_one_cycle_survives_a_handful_of_steps(num_steps: int):
    config = TrainingConfig(num_steps=num_steps)
    rates = [one_cycle(step, config) for step in range(num_steps)]
    assert all(0 < rate <= config.learning_rate for rate in rates)


def test_cosine_rises_linearly_and_falls_to_zero():
    config = TrainingConfig(num_steps=100, learning_rate=1.0, warmup_fraction=0.1)
    rates = [cosine(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[9] == 1.0
    assert all(before > after > 0 for before, after in itertools.pairwise(rates[9:]))
    assert rates[99] < 1e-3


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_cosine_survives_the_ends_of_its_range(fraction: float):
    config = TrainingConfig(num_steps=3, warmup_fraction=fraction)
    assert all(0 < cosine(step, config) <= config.learning_rate for step in range(3))


def test_the_config_names_the_schedule():
    config = TrainingConfig(num_steps=10)
    assert learning_rate(4, config) == one_cycle(4, config)
    assert learning_rate(4, replace(config, schedule="cosine")) == cosine(
        4, replace(config, schedule="cosine")
    )


def test_only_matrices_are_decayed():
    backbone = Backbone(TINY)
    optimizer = build_optimizer(backbone, TrainingConfig(weight_decay=0.1))
    decayed, kept = optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in kept["params"])
    total = len(decayed["params"]) + len(kept["params"])
    assert total == len(list(backbone.parameters()))
