"""Augmentation is each model's own, and changes what it says."""

from typing import Any

import pytest
import torch

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.augmentation import Augmentation, shift_images
from ws_pipeline.zoo.config import FactorGrid, GridConfig, Size
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.grid import ModelPlan, plan_population
from ws_pipeline.zoo.training import train_stack


def plans_of(*rows: dict[str, Size], **common: Any) -> list[ModelPlan]:
    factors = FactorGrid(kind="listed", rows=rows)
    common = {"architecture": "cnn", "dataset": "digits", "num_epochs": 1} | common
    return plan_population(GridConfig(name="augmented", factors=factors, **common), None)


def augment(images: torch.Tensor, **factors: float) -> torch.Tensor:
    """Augment the images of one model."""
    generators = [torch.Generator().manual_seed(0)]
    return Augmentation(plans_of(factors), generators, is_text=False).apply(images[None])[0]


def test_images_move_by_whole_pixels_and_zeros_come_in() -> None:
    images = torch.arange(1.0, 13).view(1, 1, 3, 4).repeat(3, 1, 1, 1)
    moved = shift_images(images, torch.tensor([[1, 0], [0, -2], [3, 0]]))
    assert moved[0, 0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert moved[1, 0].tolist() == [[3, 4, 0, 0], [7, 8, 0, 0], [11, 12, 0, 0]]
    assert not moved[2].any()


def test_each_factor_does_what_it_says() -> None:
    images = torch.rand(200, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment(images, flip=1.0), images.flip(-1))
    half = augment(images, flip=0.5)
    mirrored = (half == images.flip(-1)).flatten(1).all(dim=1)
    same = (half == images).flatten(1).all(dim=1)
    assert (mirrored ^ same).all()
    assert 60 < mirrored.sum() < 140
    moved = augment(images, shift=1)
    at_rest = (moved == images).flatten(1).all(dim=1).double().mean()
    assert 0.02 < at_rest < 0.25, "one of nine places"
    noisy = augment(torch.full_like(images, 0.5), noise=0.1)
    assert noisy.std() == pytest.approx(0.1, rel=0.05)
    assert 0 <= augment(images, noise=1.0).min() <= augment(images, noise=1.0).max() <= 1


def test_without_factors_images_are_passed_on_untouched() -> None:
    images = torch.rand(1, 4, 1, 6, 6)
    generators = [torch.Generator()]
    passed = Augmentation(plans_of({"learning_rate": 1e-3}), generators, is_text=False)
    assert passed.apply(images) is images


def test_augmented_models_train_together_as_they_do_alone() -> None:
    plans = plans_of(
        {"flip": 0.5, "shift": 1, "noise": 0.1},
        {"learning_rate": 2e-3},
        {"noise": 0.3, "learning_rate": 3e-3},
    )
    digits = load_dataset("digits")
    together = train_stack(plans, digits, dtype=torch.float64)
    for plan, model in zip(plans, together, strict=True):
        (alone,) = train_stack([plan], digits, dtype=torch.float64)
        for name, tensor in alone.checkpoints[-1].state.items():
            torch.testing.assert_close(
                model.checkpoints[-1].state[name], tensor, rtol=1e-9, atol=1e-9
            )
    plain = train_stack(plans_of({"learning_rate": 3e-3}), digits, dtype=torch.float64)
    assert not torch.equal(
        plain[0].checkpoints[-1].state["fc1.weight"],
        together[2].checkpoints[-1].state["fc1.weight"],
    )


def test_text_is_not_augmented() -> None:
    plans = plans_of({"noise": 0.1}, architecture="bert", dataset="kinds")
    with pytest.raises(ConfigError, match="change images, 'kinds' has none"):
        train_stack(plans, load_dataset("kinds"))


def test_ids_of_before_still_stand() -> None:
    one, other = plans_of({"learning_rate": 1e-3}), plans_of({"learning_rate": 1e-3, "noise": 0.0})
    assert one[0].model_id == other[0].model_id
    assert one[0].model_id != plans_of({"learning_rate": 1e-3, "noise": 0.1})[0].model_id
