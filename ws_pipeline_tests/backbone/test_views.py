import torch

from ws_pipeline.backbone.config import LossConfig, ViewConfig
from ws_pipeline.backbone.normalization import normalize
from ws_pipeline.backbone.views import (
    add_noise,
    augment_windows,
    hide_tokens,
    make_views,
    step_generator,
)
from ws_pipeline_tests.backbone.tiny_corpus import make_windows


def test_noise_is_multiplicative_and_leaves_padding_alone():
    clean = make_windows(batch=4, window=64, token_size=32)
    noisy = add_noise(clean, 0.1, step_generator(0, 0, 0))
    real = clean.mask & (clean.tokens != 0)
    ratio = noisy.tokens[real] / clean.tokens[real] - 1
    assert abs(ratio.std().item() - 0.1) < 0.005
    assert not noisy.tokens[~clean.mask].any()


def test_a_hidden_token_is_zero_once_normalised():
    clean = make_windows(batch=4, window=64)
    hidden = hide_tokens(clean, 0.3, step_generator(0, 0, 0))
    scaled = normalize(hidden.tokens, hidden.mask, hidden.scale, "layer").tokens
    real = clean.mask.any(dim=-1)
    blank = scaled.abs().amax(dim=-1) < 1e-5
    assert 0.2 < blank[real].float().mean() < 0.4
    assert not hidden.tokens[~clean.mask].any()


def test_nothing_is_drawn_where_nothing_is_asked_for():
    clean = make_windows()
    generator = step_generator(0, 0, 0)
    state = generator.get_state()
    views = make_views(clean, ViewConfig(noise=0.0), LossConfig(), generator=generator)
    assert torch.equal(views.tokens, clean.tokens)
    assert torch.equal(generator.get_state(), state)


def test_the_contrastive_pair_is_the_original_and_the_noisy_view():
    clean = make_windows()
    loss = LossConfig(contrastive_weight=0.05)
    views = make_views(clean, ViewConfig(), loss, generator=step_generator(0, 0, 0))
    assert torch.equal(views.tokens[:3], clean.tokens)
    assert not torch.equal(views.tokens[3:], clean.tokens)
    assert torch.equal(views.positions[3:], clean.positions)


def test_views_are_a_pure_function_of_seed_step_and_rank():
    def draw(*key: int) -> list[float]:
        return torch.rand(4, generator=step_generator(*key)).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    keys = [(s, t, r) for s in (0, 1, 2**31 - 1) for t in (0, 1, 10**6) for r in (0, 1)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_mixtures_and_flips_keep_scale_mask_and_places():
    clean = make_windows(batch=32, window=16, token_size=32)
    views = ViewConfig(mixtures=1.0, flip_signs=True)
    mixed = augment_windows(clean, views, generator=step_generator(0, 0, 0))
    assert torch.equal(mixed.mask, clean.mask)
    assert torch.equal(mixed.positions, clean.positions)
    assert not mixed.tokens[~clean.mask].any()
    before, after = (
        normalize(w.tokens, w.mask, w.scale, "layer").tokens[:1] for w in (clean, mixed)
    )
    assert not torch.allclose(before, after)
    ratio = after[clean.mask[:1]].std() / before[clean.mask[:1]].std()
    assert 0.7 < ratio < 1.3


def test_a_flip_alone_changes_signs_of_whole_windows_only():
    clean = make_windows(batch=16)
    flipped = augment_windows(clean, ViewConfig(flip_signs=True), generator=step_generator(0, 0, 0))
    before, after = (normalize(w.tokens, w.mask, w.scale, "layer").tokens for w in (clean, flipped))
    products = (after * before).sum(dim=(1, 2)) / before.square().sum(dim=(1, 2))
    assert {round(product, 3) for product in products.tolist()} == {-1.0, 1.0}


def test_without_augmentation_the_clean_windows_are_the_same_object():
    clean = make_windows()
    assert augment_windows(clean, ViewConfig(), generator=step_generator(0, 0, 0)) is clean
