import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ws_pipeline.backbone.normalization import (
    MAX_RATIO,
    Reduction,
    ScaledTokens,
    denormalize,
    normalize,
    require_finite,
    scale_from_features,
)
from ws_pipeline.errors import WeightsError
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


def any_windows(values, kept):
    """Tokens, mask and the layer's own scale; some positions are padding."""
    mask = torch.from_numpy(kept)
    tokens = torch.from_numpy(values).masked_fill(~mask, 0.0)
    real = tokens[mask].double()
    mean = real.mean() if real.numel() else torch.zeros(())
    std = real.std(correction=0) if real.numel() else torch.zeros(())
    scale = torch.stack((mean, std.clamp(min=2.0**-24).log())).float()
    return tokens, mask, scale.expand(*tokens.shape[:2], 2)


SHAPE = (2, 3, 5)
# Ordinary weights, outliers of any size, numbers that float32 can just hold, zeros of both signs.
WEIGHTS = st.floats(-1.0, 1.0, width=32) | st.floats(-(2.0**120), 2.0**120, width=32)


@pytest.mark.parametrize("granularity", ALL)
@given(hnp.arrays(np.float32, SHAPE, elements=WEIGHTS), hnp.arrays(np.bool_, SHAPE))
def test_any_weights_come_back_to_float32_of_the_largest(granularity, values, kept):
    tokens, mask, scale = any_windows(values, kept)
    scaled = normalize(tokens, mask, scale, granularity)
    assert all(part.isfinite().all() for part in scaled)
    assert scaled.features().isfinite().all()
    again = denormalize(scaled, mask)
    if granularity == "none":
        assert torch.equal(again, tokens)
    # Beside the rounding of the mean: a hair for numbers that float32 itself rounds to zero.
    largest = max(tokens.abs().max().double(), scaled.mean.abs().max().double())
    error = (again.double() - tokens.double()).abs().max()
    assert error <= 8 * torch.finfo(torch.float32).eps * largest + 1e-37


@pytest.mark.parametrize(("granularity", "num"), [("token", 5), ("window", 15), ("batch", 30)])
@given(hnp.arrays(np.float32, SHAPE, elements=WEIGHTS))
def test_an_outlier_stays_within_the_root_of_the_count(granularity, num, values):
    tokens, mask, scale = any_windows(values, np.ones(SHAPE, np.bool_))
    scaled = normalize(tokens, mask, scale, granularity)
    assert scaled.tokens.abs().max() <= 1.01 * num**0.5


@given(st.floats(-1e4, 1e4), st.floats(-18.0, 20.0))
def test_any_scale_survives_its_features(mean, log_std):
    std = torch.full((1, 1, 1), log_std).exp()
    scaled = ScaledTokens(torch.zeros(1, 1, 4), torch.full((1, 1, 1), mean), std)
    again_mean, again_std = scale_from_features(scaled.features())
    torch.testing.assert_close(again_mean, scaled.mean, rtol=2e-3, atol=1e-9)
    raised = torch.maximum(std, scaled.mean.abs() / MAX_RATIO)
    torch.testing.assert_close(again_std, raised, rtol=1e-4, atol=0)


class TwoThreads:
    """Two threads in place of two processes: each reduction waits for the other's part."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=60)
        self.parts: list[torch.Tensor] = [torch.empty(0)] * 2

    def reduction(self, rank: int) -> Reduction:
        def combine(how, part: torch.Tensor) -> torch.Tensor:
            self.parts[rank] = part
            self.barrier.wait()
            found = how(*self.parts)
            self.barrier.wait()
            return found

        return Reduction(partial(combine, torch.add), partial(combine, torch.maximum))


def test_a_batch_in_parts_is_normalised_as_the_whole_batch():
    clean = make_windows(batch=4)
    whole = (clean.tokens, clean.mask, clean.scale)
    expected = normalize(*whole, "batch")
    threads = TwoThreads()

    def normalize_half(rank: int) -> ScaledTokens:
        half = (part.chunk(2)[rank] for part in whole)
        return normalize(*half, "batch", threads.reduction(rank))

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(normalize_half, range(2)))
    for name in ScaledTokens._fields:
        found = torch.cat([getattr(half, name) for half in halves])
        torch.testing.assert_close(found, getattr(expected, name))


def test_a_fresh_norm_of_ones_keeps_its_value_in_the_features():
    ones = ScaledTokens(torch.zeros(1, 1, 4), torch.ones(1, 1, 1), torch.full((1, 1, 1), 1e-10))
    mean, std = scale_from_features(ones.features())
    assert mean.item() == pytest.approx(1.0, rel=2e-3)
    assert std.item() < 2e-4


def test_values_that_are_not_finite_are_refused():
    tokens, mask = torch.tensor([[[1.0, float("nan")]]]), torch.tensor([[[True, True]]])
    with pytest.raises(WeightsError, match="must be finite float32 numbers, 1 of 2 are not"):
        require_finite(tokens, mask)
    require_finite(tokens, torch.tensor([[[True, False]]]))
