"""Contrastive pre-training: two views of one image, many models as if each were alone."""

from dataclasses import replace

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.architectures import build_module
from ws_pipeline.zoo.config import ARCHITECTURE_SIZES
from ws_pipeline.zoo.contrastive import (
    Views,
    attach_projection,
    change_images,
    contrastive_losses,
    fit_probes,
)
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.training import train_stack
from ws_pipeline_tests.zoo.test_training import TOLERANCES, largest_difference, make_plans


@pytest.mark.parametrize("architecture", ["vit", "cnn"])
def test_models_trained_together_equal_the_same_trained_alone(architecture: str) -> None:
    plans = [
        replace(
            plan,
            factors={**plan.factors, "objective": "contrastive", "temperature": heat},
            rows_per_epoch=440,
        )
        for plan, heat in zip(make_plans(architecture)[:2], (0.07, 0.5), strict=True)
    ]
    dataset = load_dataset("digits")
    together = train_stack(plans, dataset, dtype=torch.float64)
    for plan, model in zip(plans, together, strict=True):
        (alone,) = train_stack([plan], dataset, dtype=torch.float64)
        assert largest_difference(model, alone) < TOLERANCES.get(architecture, 1e-9)
        assert model.train_losses == pytest.approx(alone.train_losses, rel=1e-4)


def test_the_loss_is_that_of_the_formula_written_out() -> None:
    generator = torch.Generator().manual_seed(1)
    projections = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    temperatures = torch.tensor([0.07, 0.5], dtype=torch.float64)
    losses = contrastive_losses(projections, temperatures)
    for model, temperature in enumerate(temperatures):
        terms = []
        for one in range(6):
            heat = [
                torch.exp(
                    torch.cosine_similarity(
                        projections[model, one], projections[model, other], dim=0
                    )
                    / temperature
                )
                for other in range(6)
            ]
            total = sum(heat[other] for other in range(6) if other != one)
            terms.append(-torch.log(heat[(one + 3) % 6] / total))
        torch.testing.assert_close(losses[model], torch.stack(terms).mean())


def test_a_view_in_the_middle_of_its_range_is_the_image_itself() -> None:
    images = torch.rand(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    still = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5, 0.5]).expand(2, 3, 6)
    torch.testing.assert_close(change_images(images, still), images, rtol=1e-5, atol=1e-6)


def test_both_views_are_of_the_same_image_and_differ() -> None:
    dataset = load_dataset("digits")
    assert isinstance(dataset, LabelledDataset)
    plans = make_plans("vit")[:2]
    views = Views(plans)
    views.begin_epoch(1)
    # Images of one grey each: a view keeps what distinguishes them, up to contrast and brightness.
    greys = torch.tensor([0.0, 1.0])[None, :, None, None, None].expand(2, 2, 1, 8, 8)
    drawn = views.draw(greys)
    assert drawn.shape == (2, 4, 1, 8, 8)
    middle = drawn[..., 4, 4].squeeze(-1)
    assert (middle[:, [0, 2]] < 0.3).all()
    assert (middle[:, [1, 3]] > 0.3).all()
    assert not torch.equal(drawn[:, :2], drawn[:, 2:])
    alone = Views(plans[1:])
    alone.begin_epoch(1)
    assert torch.equal(alone.draw(greys[1:]), drawn[1:])


def test_probes_are_linear_discriminant_analysis() -> None:
    dataset = load_dataset("digits")
    assert isinstance(dataset, LabelledDataset)
    features = torch.from_numpy(dataset.train_inputs).flatten(1)[:, 10:54]
    labels = torch.from_numpy(dataset.train_labels)
    ignored = labels.clone()
    ignored[500:] = -100
    weights, biases = fit_probes(
        torch.stack([features, features]), torch.stack([labels, ignored]), 10
    )
    for index, end in enumerate((len(labels), 500)):
        reference = LinearDiscriminantAnalysis(solver="lsqr").fit(features[:end], labels[:end])
        ours = (features @ weights[index].T + biases[index]).softmax(dim=-1)
        theirs = torch.from_numpy(reference.predict_proba(features.numpy()))
        assert (ours.argmax(-1) == theirs.argmax(-1)).double().mean() > 0.99
        assert (ours - theirs).abs().mean() < 0.01


def test_a_model_that_is_not_finite_hurts_no_other_probe() -> None:
    features = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    labels = (features[..., 0] > 0).long()
    weights, _ = fit_probes(features, labels, 2)
    features[0] = torch.nan
    beside, _ = fit_probes(features, labels, 2)
    torch.testing.assert_close(beside[1], weights[1])


@pytest.mark.parametrize("architecture", ["mlp", "bert", "gpt2"])
def test_an_architecture_without_such_a_head_is_refused(architecture: str) -> None:
    dataset = load_dataset({"mlp": "digits", "bert": "kinds", "gpt2": "text"}[architecture])
    module = build_module(architecture, ARCHITECTURE_SIZES[architecture], dataset, seed=0)
    with pytest.raises(ConfigError, match=f"'{architecture}' is none: take vit, cnn"):
        attach_projection(module, architecture, 0)
