"""Mixup, cutmix and random erasing: what they do to images, and to no model beside."""

from dataclasses import replace

import pytest
import torch

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.batches import Batch
from ws_pipeline.zoo.config import Scalar
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.grid import ModelPlan
from ws_pipeline.zoo.mixing import Mixing, erase_rectangles
from ws_pipeline.zoo.training import train_stack
from ws_pipeline_tests.zoo.test_training import TOLERANCES, largest_difference, make_plans

RECIPE: dict[str, Scalar] = {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.25}


def mixing_plans(*rows: dict[str, Scalar], architecture: str = "vit") -> list[ModelPlan]:
    plans = make_plans(architecture)
    return [
        replace(plan, factors={**plan.factors, **row})
        for plan, row in zip(plans, rows, strict=False)
    ]


def batch_of(num_models: int) -> Batch:
    images = torch.rand(num_models, 6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return Batch(inputs=images, labels=torch.arange(6).expand(num_models, 6))


def test_models_that_mix_equal_themselves_alone_and_change_none_beside() -> None:
    drawn = mixing_plans(RECIPE, {}, {"cutmix": 1.0})
    plans = [replace(plan, rows_per_epoch=440) for plan in drawn]
    dataset = load_dataset("digits")
    together = train_stack(plans, dataset, dtype=torch.float64)
    for plan, model in zip(plans, together, strict=True):
        (alone,) = train_stack([plan], dataset, dtype=torch.float64)
        assert largest_difference(model, alone) < TOLERANCES["vit"]
    (plain,) = train_stack(
        [replace(make_plans("vit")[0], rows_per_epoch=440)], dataset, dtype=torch.float64
    )
    assert largest_difference(together[0], plain) > 0.01


def test_an_image_is_mixed_by_the_share_that_its_labels_have() -> None:
    mixing = Mixing(mixing_plans({"mixup": 0.8}, {"cutmix": 1.0}, {}), are_images=True)
    batch = batch_of(3)
    shares = []
    for epoch in range(20):
        mixing.begin_epoch(epoch)
        mixed = mixing.mix(batch)
        other = batch.inputs.flip(1)
        expected = mixed.shares[0] * batch.inputs[0] + (1 - mixed.shares[0]) * other[0]
        torch.testing.assert_close(mixed.inputs[0], expected)
        from_first = mixed.inputs[1] == batch.inputs[1]
        assert (from_first | (mixed.inputs[1] == other[1])).all()
        assert float(from_first.float().mean()) == pytest.approx(float(mixed.shares[1]))
        assert torch.equal(mixed.inputs[2], batch.inputs[2])
        assert torch.equal(mixed.other_labels, batch.labels.flip(1))
        shares.append(mixed.shares)
    drawn = torch.stack(shares)
    assert (drawn[:, 2] == 1).all()
    assert (drawn[:, :2].std(dim=0) > 0.1).all()


def test_some_images_lose_one_rectangle() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.full((2, 400, 1, 16, 16), 2.0)
    numbers = torch.rand(2, 400, 6, generator=generator)
    erased = erase_rectangles(images, numbers, torch.tensor([0.25, 0.0])) != 2.0
    assert not erased[1].any()
    hit = erased[0].flatten(1).any(dim=1)
    assert 0.2 < float(hit.float().mean()) < 0.3
    for mask in erased[0][hit][:, 0]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns[None])
        assert 0 < float(mask.float().mean()) < 0.45


def test_text_is_not_mixed() -> None:
    with pytest.raises(ConfigError, match="mixup is for images, 'kinds' has none"):
        Mixing(
            mixing_plans(RECIPE | {"random_erasing": 0.0}, architecture="bert"), are_images=False
        )
