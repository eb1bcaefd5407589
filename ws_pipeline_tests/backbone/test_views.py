import numpy as np
import torch

from ws_pipeline.backbone.config import LossConfig, ViewConfig
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.backbone.normalization import normalize
from ws_pipeline.backbone.view_draws import ViewDraws, draw_views
from ws_pipeline.backbone.views import (
    add_noise,
    augment_windows,
    hide_tokens,
    join,
    make_views,
)
from ws_pipeline_tests.backbone.tiny_corpus import make_windows

CONTRAST = LossConfig(contrastive_weight=0.05)


def test_noise_is_multiplicative_and_leaves_padding_alone():
    clean = make_windows(batch=4, window=64, token_size=32)
    noisy = add_noise(clean, 0.1, draw_views(0, 0, 4))
    real = clean.mask & (clean.tokens != 0)
    ratio = noisy.tokens[real] / clean.tokens[real] - 1
    assert abs(ratio.std().item() - 0.1) < 0.005
    assert not noisy.tokens[~clean.mask].any()


def test_a_hidden_token_is_zero_once_normalised():
    clean = make_windows(batch=4, window=64)
    hidden = hide_tokens(clean, 0.3, draw_views(0, 0, 4))
    scaled = normalize(hidden.tokens, hidden.mask, hidden.scale, "layer").tokens
    real = clean.mask.any(dim=-1)
    blank = scaled.abs().amax(dim=-1) < 1e-5
    assert 0.2 < blank[real].float().mean() < 0.4
    assert not hidden.tokens[~clean.mask].any()


class NoDraws(ViewDraws):
    """Refuses to draw."""

    def uniform(self, device):
        raise AssertionError

    normal = token_uniform = uniform


def test_nothing_is_drawn_where_nothing_is_asked_for():
    clean = make_windows()
    draws = NoDraws(words=np.zeros((3, 4), dtype=np.uint64))
    views = make_views(clean, ViewConfig(noise=0.0), LossConfig(), draws)
    assert views.inputs is clean
    assert views.targets is clean
    assert augment_windows(clean, ViewConfig(), draws) is clean


def test_the_contrastive_pair_is_the_original_and_the_noisy_view():
    clean = make_windows()
    views = make_views(clean, ViewConfig(), CONTRAST, draw_views(0, 0, 3))
    assert torch.equal(views.inputs.tokens[:3], clean.tokens)
    assert not torch.equal(views.inputs.tokens[3:], clean.tokens)
    assert torch.equal(views.inputs.positions[3:], clean.positions)
    assert torch.equal(views.targets.tokens, clean.tokens.repeat(2, 1, 1))


def test_the_target_of_a_permuted_view_is_the_clean_permuted_window():
    stored, permuted = make_windows(seed=0), make_windows(seed=1)
    views = make_views(
        join(stored, permuted), ViewConfig(permutation=True), CONTRAST, draw_views(0, 0, 3)
    )
    assert torch.equal(views.inputs.tokens[:3], stored.tokens)
    noisy = add_noise(permuted, 0.1, draw_views(0, 0, 3))
    assert torch.equal(views.inputs.tokens[3:], noisy.tokens)
    assert torch.equal(views.targets.tokens, torch.cat((stored.tokens, permuted.tokens)))


def test_the_draws_of_a_window_do_not_depend_on_its_neighbours():
    whole = draw_views(7, 100, 8)
    for first, count in ((100, 4), (104, 4), (107, 1)):
        part, rows = draw_views(7, first, count), slice(first - 100, first - 100 + count)
        for name, args in (("uniform", ()), ("normal", ((5, 3),)), ("token_uniform", (9,))):
            one, other = (getattr(d, name)(*args, torch.device("cpu")) for d in (whole, part))
            assert torch.equal(one[rows], other)


def test_draws_differ_between_seeds_windows_and_purposes():
    cpu = torch.device("cpu")
    drawn = [
        values
        for seed in (0, 1, 2**31 - 1)
        for first in (0, 10**9, 2**40)
        for draws in (draw_views(seed, first, 2),)
        for values in (*draws.normal((4,), cpu).tolist(), *draws.token_uniform(4, cpu).tolist())
    ]
    assert len({tuple(values) for values in drawn}) == len(drawn) == 36


def test_uniform_draws_fill_the_interval():
    values = draw_views(0, 0, 4_000).uniform(torch.device("cpu"))
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert torch.allclose(values.mean(dim=0), torch.full((3,), 0.5), atol=0.02)


def test_mixtures_and_flips_keep_scale_mask_and_places():
    clean = make_windows(batch=32, window=16, token_size=32)
    views = ViewConfig(mixtures=1.0, flip_signs=True)
    mixed = augment_windows(clean, views, draw_views(0, 0, 32))
    assert torch.equal(mixed.mask, clean.mask)
    assert torch.equal(mixed.positions, clean.positions)
    assert not mixed.tokens[~clean.mask].any()
    before, after = (
        normalize(w.tokens, w.mask, w.scale, "layer").tokens[:1] for w in (clean, mixed)
    )
    assert not torch.allclose(before, after)
    ratio = after[clean.mask[:1]].std() / before[clean.mask[:1]].std()
    assert 0.7 < ratio < 1.3


def test_a_share_of_a_batch_is_augmented_as_in_the_whole_batch():
    clean = make_windows(batch=8)
    views = ViewConfig(mixtures=0.7, flip_signs=True)
    whole = augment_windows(clean, views, draw_views(0, 40, 8))
    for start in (0, 2, 6):
        share = Windows(*(part[start : start + 2] for part in clean))
        mixed = augment_windows(share, views, draw_views(0, 40 + start, 2))
        assert torch.equal(mixed.tokens, whole.tokens[start : start + 2])


def test_both_orders_of_a_window_are_augmented_alike():
    clean = make_windows(batch=4)
    views = ViewConfig(mixtures=1.0, flip_signs=True)
    draws = draw_views(0, 0, 4)
    twice = augment_windows(join(clean, clean), views, draws)
    assert torch.equal(twice.tokens[:4], twice.tokens[4:])
    assert torch.equal(twice.tokens[:4], augment_windows(clean, views, draws).tokens)


def test_a_flip_alone_changes_signs_of_whole_windows_only():
    clean = make_windows(batch=16)
    flipped = augment_windows(clean, ViewConfig(flip_signs=True), draw_views(0, 0, 16))
    before, after = (normalize(w.tokens, w.mask, w.scale, "layer").tokens for w in (clean, flipped))
    products = (after * before).sum(dim=(1, 2)) / before.square().sum(dim=(1, 2))
    assert {round(product, 3) for product in products.tolist()} == {-1.0, 1.0}
