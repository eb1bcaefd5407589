import math
from dataclasses import replace

import pytest
import torch

from ws_pipeline.backbone.config import LossConfig, ViewConfig
from ws_pipeline.backbone.loss import (
    Windows,
    backbone_loss,
    normalized_errors,
    nt_xent_loss,
    reconstruction_errors,
    scale_errors,
)
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.normalization import normalize
from ws_pipeline.backbone.view_draws import draw_views
from ws_pipeline.backbone.views import make_views
from ws_pipeline_tests.backbone.tiny_corpus import TINY, make_windows


def predict(clean: Windows, offset: float, granularity="layer"):
    """A prediction that is off by `offset` normalised units everywhere."""
    scaled = normalize(clean.tokens, clean.mask, clean.scale, granularity)
    return scaled._replace(tokens=(scaled.tokens + offset).masked_fill(~clean.mask, 0.0))


def reconstruction_loss(prediction, clean: Windows, config: LossConfig) -> torch.Tensor:
    return reconstruction_errors(prediction, clean, config) / clean.mask.sum()


def test_a_perfect_prediction_costs_nothing():
    clean = make_windows()
    for granularity in ("none", "batch", "window", "token", "layer"):
        config = LossConfig(normalization=granularity)
        loss = reconstruction_loss(predict(clean, 0.0), clean, config)
        assert loss.item() < 1e-8


def test_an_error_counts_in_units_of_the_layer():
    clean = make_windows()
    loss = reconstruction_loss(predict(clean, 0.5), clean, LossConfig())
    assert loss.item() == pytest.approx(0.25, rel=1e-5)


def test_in_units_of_the_batch_quiet_layers_hardly_count():
    clean = make_windows(batch=1, window=8)
    quiet = predict(clean, 0.0)
    wrong = clean.scale[..., 1] < math.log(0.01)
    wrong = wrong[..., None] & clean.mask
    quiet = quiet._replace(tokens=torch.where(wrong, quiet.tokens + 1.0, quiet.tokens))
    loud_unit = reconstruction_loss(quiet, clean, LossConfig(normalization="batch")).item()
    layer_unit = reconstruction_loss(quiet, clean, LossConfig(normalization="layer")).item()
    assert loud_unit < 1e-3 * layer_unit


def test_padding_costs_nothing():
    clean = make_windows()
    right = predict(clean, 0.0)
    wrong = right._replace(tokens=torch.where(clean.mask, right.tokens, 1e3))
    assert not normalized_errors(wrong, clean)[~clean.mask].any()
    assert torch.equal(
        reconstruction_loss(wrong, clean, LossConfig()),
        reconstruction_loss(right, clean, LossConfig()),
    )


def test_the_target_is_clean_though_the_view_is_noisy():
    clean = make_windows()
    views = make_views(clean, ViewConfig(noise=0.5), LossConfig(), draw_views(0, 0, 3))
    seen = views.inputs
    of_view = normalize(seen.tokens, seen.mask, seen.scale, "layer")
    copied = reconstruction_loss(of_view, views.targets, LossConfig())
    assert copied.item() > 0.05


def test_nt_xent_is_the_papers_equation():
    first, second = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.eye(3, 5)
    rows = torch.nn.functional.normalize(torch.cat((first, second)), dim=-1)
    terms = []
    for i in range(6):
        partner = (i + 3) % 6
        similarity = [math.exp(float(rows[i] @ rows[k]) / 0.1) for k in range(6)]
        terms.append(-math.log(similarity[partner] / (sum(similarity) - similarity[i])))
    loss = nt_xent_loss(first, second, temperature=0.1)
    assert loss.item() == pytest.approx(sum(terms) / 6, rel=1e-5)


def test_nt_xent_is_low_for_pairs_and_high_for_strangers():
    rows = torch.eye(4)
    assert nt_xent_loss(rows, rows, temperature=0.1) < 0.01
    assert nt_xent_loss(rows, rows.roll(1, 0), temperature=0.1) > 5


def test_the_parts_add_up():
    clean = make_windows()
    config = LossConfig(contrastive_weight=0.25, scale_weight=0.5)
    views = make_views(clean, ViewConfig(), config, draw_views(0, 0, 3))
    output = Backbone(TINY)(*views.inputs)
    losses = backbone_loss(output, views.targets, config)
    expected = 0.75 * losses.reconstruction + 0.25 * losses.contrastive + 0.5 * losses.scale
    torch.testing.assert_close(losses.total, expected)
    assert losses.contrastive > 0


def test_without_a_contrastive_weight_there_is_one_view_and_no_term():
    clean = make_windows()
    views = make_views(clean, ViewConfig(), LossConfig(), draw_views(0, 0, 3))
    assert views.inputs.tokens.shape == clean.tokens.shape
    losses = backbone_loss(Backbone(TINY)(*views.inputs), views.targets, LossConfig())
    assert losses.contrastive == 0


def test_the_scale_loss_is_zero_for_the_true_scale_and_without_scale_features():
    clean = make_windows()
    output = Backbone(TINY)(*clean)
    told = output._replace(scale=output.prediction.features())
    assert scale_errors(told, clean) == 0
    silent = Backbone(replace(TINY, use_scale=False))(*clean)
    assert scale_errors(silent, clean) == 0
