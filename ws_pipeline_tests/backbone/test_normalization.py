import pytest
import torch

from ws_pipeline.backbone.normalization import (
    denormalize,
    normalize,
    scale_from_features,
)
from ws_pipeline_tests.backbone.tiny_corpus import make_windows

ALL = ("none", "batch", "window", "token", "layer")


@pytest.mark.parametrize("granularity", ALL)
def test_denormalize_undoes_normalize(granularity):
    clean = make_windows()
    scaled = normalize(clean.tokens, clean.mask, clean.scale, granularity)
    torch.testing.assert_close(denormalize(scaled, clean.mask), clean.tokens, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("granularity", ALL)
def test_padding_stays_zero(granularity):
    clean = make_windows()
    scaled = normalize(clean.tokens, clean.mask, clean.scale, granularity)
    assert not scaled.tokens[~clean.mask].any()
    assert scaled.mean.shape == scaled.std.shape == (3, 7, 1)


@pytest.mark.parametrize(("granularity", "dims"), [("token", (2,)), ("window", (1, 2))])
def test_statistics_count_real_weights_only(granularity, dims):
    clean = make_windows()
    scaled = normalize(clean.tokens, clean.mask, clean.scale, granularity)
    count = clean.mask.sum(dim=dims)
    mean = scaled.tokens.sum(dim=dims) / count.clamp(min=1)
    square = scaled.tokens.square().sum(dim=dims) / count.clamp(min=1)
    real = count > 1
    torch.testing.assert_close(mean[real], torch.zeros_like(mean[real]), atol=1e-5, rtol=0)
    torch.testing.assert_close(square[real], torch.ones_like(mean[real]), atol=1e-4, rtol=0)


def test_layer_takes_the_batch_s_own_scale():
    clean = make_windows()
    scaled = normalize(clean.tokens, clean.mask, clean.scale, "layer")
    torch.testing.assert_close(scaled.std[..., 0], clean.scale[..., 1].exp())
    loud, quiet = scaled.tokens[0, 0].std(), scaled.tokens[0, 5].std()
    assert 0.3 < loud < 3
    assert 0.3 < quiet < 3


def test_batch_leaves_quiet_layers_quiet():
    clean = make_windows()
    scaled = normalize(clean.tokens, clean.mask, clean.scale, "batch")
    assert scaled.tokens[0, 5].std() < 0.02 * scaled.tokens[0, 0].std()


def test_a_constant_layer_becomes_zeros_and_comes_back():
    tokens, mask = torch.full((1, 2, 4), 0.25), torch.ones(1, 2, 4, dtype=torch.bool)
    scale = torch.tensor([[[0.25, -100.0]] * 2])
    scaled = normalize(tokens, mask, scale, "layer")
    assert not scaled.tokens.any()
    assert scaled.features().isfinite().all()
    torch.testing.assert_close(denormalize(scaled, mask), tokens)


def test_features_give_the_scale_back():
    clean = make_windows()
    scaled = normalize(clean.tokens, clean.mask, clean.scale, "layer")
    mean, std = scale_from_features(scaled.features())
    torch.testing.assert_close(mean, scaled.mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(std, scaled.std, rtol=1e-4, atol=1e-6)
