"""Models trained together are the models trained alone."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.architectures import build_module
from ws_pipeline.zoo.batches import make_batches, make_seed
from ws_pipeline.zoo.config import FactorGrid, GridConfig, Size
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.dropout import DropoutMasks
from ws_pipeline.zoo.grid import ModelPlan, plan_population
from ws_pipeline.zoo.training import StackRun, TrainedModel, train_stack

SETTINGS = (
    {"learning_rate": 1e-2, "optimizer": "sgd", "schedule": "cosine", "label_smoothing": 0.1},
    {"learning_rate": 1e-3, "label_noise": 0.3},
    {"learning_rate": 3e-3, "weight_decay": 0.1, "train_fraction": 0.2, "dropout": 0.5},
    {"learning_rate": 1e-3, "optimizer": "adam"},
)
SMALL: Mapping[str, tuple[str, Mapping[str, Size]]] = {
    "mlp": ("digits", {"hidden_sizes": (12,)}),
    "cnn": ("digits", {"channels": (3, 4, 5), "hidden_size": 8}),
    "resnet18": ("digits", {"width": 2}),
    "vit": ("digits", {"width": 8, "num_layers": 1, "mlp_size": 8, "patch_size": 4}),
    "bert": ("kinds", {"width": 8, "num_layers": 1, "mlp_size": 8}),
    "gpt2": ("text", {"width": 8, "num_layers": 1, "mlp_size": 8, "context": 12}),
}


def make_plans(architecture: str) -> list[ModelPlan]:
    dataset, sizes = SMALL[architecture]
    grid = GridConfig(
        name="a",
        architecture=architecture,
        dataset=dataset,
        sizes=sizes,
        factors=FactorGrid(kind="listed", rows=SETTINGS),
        num_epochs=1,
        batch_size=22 if dataset == "digits" else 64,  # 49 steps on the digits
    )
    return plan_population(grid, None)


def largest_difference(together: TrainedModel, alone: TrainedModel) -> float:
    """Relative to each tensor's own size, over all tensors of the final state."""
    one, other = together.checkpoints[-1].state, alone.checkpoints[-1].state
    assert one.keys() == other.keys()
    return max(
        float((one[name] - other[name]).double().norm() / other[name].double().norm().clamp(1e-8))
        for name in one
    )


# ViT's attention takes its softmax in float32 whatever the weights are, so 1e-9 is not to be had.
TOLERANCES = {"vit": 1e-4}


@pytest.mark.parametrize("architecture", SMALL)
def test_models_trained_together_equal_the_same_trained_alone(architecture: str) -> None:
    plans = make_plans(architecture)
    dataset = load_dataset(plans[0].dataset)
    together = train_stack(plans, dataset, dtype=torch.float64)
    for plan, model in list(zip(plans, together, strict=True))[:3]:
        (alone,) = train_stack([plan], dataset, dtype=torch.float64)
        assert model.plan is plan
        assert largest_difference(model, alone) < TOLERANCES.get(architecture, 1e-9)
        assert model.checkpoints[-1].metrics == pytest.approx(alone.checkpoints[-1].metrics)


@pytest.mark.parametrize("architecture", ["cnn", "resnet18"])
def test_large_images_go_model_by_model_and_change_nothing(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = make_plans(architecture)
    dataset = load_dataset("digits")
    as_groups = train_stack(plans, dataset, dtype=torch.float64)
    monkeypatch.setattr("ws_pipeline.zoo.stack.LARGE_IMAGE_PIXELS", 1)
    in_turn = train_stack(plans, dataset, dtype=torch.float64)
    for one, other in zip(as_groups, in_turn, strict=True):
        assert largest_difference(one, other) < 1e-9


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_in_single_precision_they_are_equal_to_a_ten_thousandth(architecture: str) -> None:
    plans = make_plans(architecture)
    dataset = load_dataset(plans[0].dataset)
    together = train_stack(plans, dataset)
    (alone,) = train_stack([plans[1]], dataset)
    assert largest_difference(together[1], alone) < 1e-4


ON_IMAGES: tuple[Mapping[str, float | str], ...] = (
    {"objective": "contrastive"},
    {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.25, "flip": 0.5, "shift": 1.0, "noise": 0.1},
)


@pytest.mark.parametrize(
    ("architecture", "factors"),
    [*((name, {}) for name in SMALL), *(("vit", factors) for factors in ON_IMAGES)],
)
def test_a_step_happens_where_the_models_are(
    architecture: str, factors: Mapping[str, float | str]
) -> None:
    """Torch's device without memory refuses operands of another, as a GPU does."""
    plans = [
        replace(plan, factors={**plan.factors, **factors}) for plan in make_plans(architecture)
    ]
    dataset = load_dataset(plans[0].dataset)
    run = StackRun(plans, dataset, {}, torch.float32, torch.device("meta"))
    run.objective.begin_epoch(1)
    losses = run.objective.losses(next(iter(run.batches.epoch(1))))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    for optimizer in run.optimizers:
        optimizer.step()
    assert losses.device == run.stack.device
    assert all(leaf.grad is not None for leaf in run.stack.leaves)


def test_a_stack_of_one_equals_plain_torch_training() -> None:
    """The same data through the module itself, its own gradient and torch's optimiser."""
    plan = make_plans("cnn")[3]
    dataset = load_dataset("digits")
    (stacked,) = train_stack([plan], dataset, dtype=torch.float64)
    seed = make_seed(plan.model_id, "initialisation")
    module = build_module("cnn", plan.sizes, dataset, seed=seed).double()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0)
    for batch in make_batches(dataset, [plan], torch.float64).epoch(1):
        loss = torch.nn.functional.cross_entropy(module(batch.inputs[0]), batch.labels[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(
            stacked.checkpoints[-1].state[name], tensor, rtol=1e-9, atol=1e-12
        )


def test_a_model_that_diverges_is_recorded_and_hurts_no_other() -> None:
    plans = make_plans("cnn")
    wild = replace(plans[0], factors={**plans[0].factors, "learning_rate": 1e30}, model_id="wild")
    dataset = load_dataset("digits")
    healthy = train_stack([plans[1]], dataset)[0]
    beside, diverged = train_stack([plans[1], wild], dataset)
    assert diverged.diverged_epoch == 1
    assert diverged.checkpoints == []
    assert beside.diverged_epoch == 0
    assert largest_difference(beside, healthy) < 1e-4


def test_training_learns_and_noise_and_small_subsets_show() -> None:
    rows = tuple({"learning_rate": 1e-2, **more} for more in ({}, {"train_fraction": 0.05}))
    grid = GridConfig(
        name="a",
        architecture="mlp",
        dataset="digits",
        factors=FactorGrid(kind="listed", rows=rows),
        num_epochs=3,
        keep_epochs=(0, 1),
    )
    full, small = train_stack(plan_population(grid, None), load_dataset("digits"))
    assert [checkpoint.epoch for checkpoint in full.checkpoints] == [0, 1, 3]
    accuracies = [checkpoint.metrics["accuracy"] for checkpoint in full.checkpoints]
    assert accuracies[0] < 0.3 < accuracies[1] < accuracies[2]
    assert accuracies[2] > 0.9
    assert len(full.train_losses) == len(full.val_accuracies) == 3
    assert small.checkpoints[-1].metrics["generalization_gap"] > 0.1
    assert full.checkpoints[-1].metrics["generalization_gap"] < 0.1
    assert small.checkpoints[-1].metrics["train_accuracy"] > 0.95


def test_predictions_are_those_the_accuracy_was_taken_from() -> None:
    dataset = load_dataset("digits")
    (model,) = train_stack([make_plans("mlp")[3]], dataset)
    checkpoint = model.checkpoints[-1]
    labels = torch.from_numpy(dataset.test_labels)  # type: ignore[union-attr]
    accuracy = float((checkpoint.predictions == labels).double().mean())
    assert checkpoint.predictions.dtype == torch.uint8
    assert checkpoint.metrics["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_an_epoch_has_as_many_rows_as_the_population_says() -> None:
    dataset = load_dataset("digits")
    short = [replace(plan, rows_per_epoch=44) for plan in make_plans("mlp")]
    assert len(list(make_batches(dataset, short, torch.float32).epoch(1))) == 2
    with pytest.raises(ConfigError, match="rows_per_epoch of population 'a' must be 0 or at least"):
        GridConfig(name="a", architecture="mlp", dataset="digits", rows_per_epoch=31)


def test_models_are_measured_on_as_many_rows_as_the_population_says() -> None:
    dataset = load_dataset("digits")
    (plan, *_) = make_plans("mlp")
    few = make_batches(dataset, [replace(plan, eval_rows=50)], torch.float32)
    (one,), (again,) = few.held_out("test"), few.held_out("test")
    (everything,) = make_batches(dataset, [plan], torch.float32).held_out("test")
    assert one.labels.shape == (1, 50)
    assert torch.equal(one.inputs, again.inputs)
    rows = {bytes(row.numpy()) for row in everything.inputs[0]}
    assert all(bytes(row.numpy()) in rows for row in one.inputs[0])


def test_bytes_and_evaluation_in_parts_change_no_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    floats = load_dataset("digits")
    assert isinstance(floats, LabelledDataset)
    levels = {
        f"{split}_inputs": np.rint(getattr(floats, f"{split}_inputs") * 255).astype(np.uint8)
        for split in ("train", "val", "test")
    }
    as_bytes = replace(floats, **levels)
    as_floats = replace(
        floats, **{name: (part / 255).astype(np.float32) for name, part in levels.items()}
    )
    plans = make_plans("cnn")[2:]
    whole = train_stack(plans, as_floats)
    monkeypatch.setattr("ws_pipeline.zoo.batches.MAX_EVAL_VALUES", 2 * 64 * 37)
    in_parts = train_stack(plans, as_bytes)
    for one, other in zip(whole, in_parts, strict=True):
        assert largest_difference(one, other) < 1e-4
        assert one.checkpoints[-1].metrics == pytest.approx(other.checkpoints[-1].metrics, abs=5e-3)
        assert len(one.checkpoints[-1].predictions) == len(other.checkpoints[-1].predictions)


def test_dropout_and_initialization_change_what_a_model_becomes_and_nothing_else_does() -> None:
    dataset = load_dataset("digits")
    plain = make_plans("cnn")[3]
    rows = ({"dropout": 0.5}, {"initialization": "kaiming_normal"}, {})
    plans = [replace(plain, factors={**plain.factors, **row}) for row in rows]
    dropped, drawn, same = (train_stack([plan], dataset)[0] for plan in plans)
    (again,) = train_stack([plain], dataset)
    assert largest_difference(same, again) == 0
    assert largest_difference(dropped, again) > 0.01
    assert largest_difference(drawn, again) > 0.1


def test_masks_keep_the_mean_and_are_those_of_the_model_alone() -> None:
    dataset = load_dataset("digits")
    assert isinstance(dataset, LabelledDataset)
    plans = [
        replace(plan, factors={**plan.factors, "dropout": rate})
        for plan, rate in zip(make_plans("cnn"), (0.0, 0.2, 0.5, 0.8), strict=True)
    ]
    module = build_module("cnn", plans[0].sizes, dataset, seed=0)
    example = torch.from_numpy(dataset.val_inputs[:1])
    masks = DropoutMasks(plans, module, example)
    masks.begin_epoch(2)
    together = masks.draw(200)
    alone = DropoutMasks(plans[2:3], module, example)
    alone.begin_epoch(2)
    for name, mask in alone.draw(200).items():
        assert torch.equal(mask[0], together[name][2])
    for name, mask in together.items():
        assert mask[0].eq(1).all()
        assert [round(float(part.eq(0).float().mean()), 1) for part in mask] == [0, 0.2, 0.5, 0.8]
        assert mask.flatten(1).mean(dim=1) == pytest.approx(torch.ones(4), abs=0.1), name
