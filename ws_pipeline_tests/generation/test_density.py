"""What is drawn lies where the density says, with noise of its own for every token."""

import numpy as np
import pytest

from ws_pipeline.errors import ConfigError
from ws_pipeline.generation.codes import ModelCode
from ws_pipeline.generation.config import DensityConfig
from ws_pipeline.generation.density import Density

TOKENS, LATENT = 40, 8


def make_codes(num: int) -> list[ModelCode]:
    generator = np.random.default_rng(0)
    return [
        ModelCode(
            latents=generator.standard_normal((TOKENS, LATENT)).astype(np.float32),
            scale=generator.standard_normal((3, 2)),
        )
        for _ in range(num)
    ]


def draw(kind: str, bandwidth: float, *, num: int = 1, anchors: int = 4) -> list[ModelCode]:
    density = Density(make_codes(anchors), DensityConfig(kind=kind, bandwidth=bandwidth))
    return [density.draw(np.random.default_rng((1, index))) for index in range(num)]


def test_a_kernel_of_no_width_is_one_of_its_anchors() -> None:
    anchors = make_codes(4)
    followed = set()
    for code in draw("model-kde", 0.0, num=40):
        matches = [np.array_equal(code.latents, anchor.latents) for anchor in anchors]
        assert sum(matches) == 1
        np.testing.assert_allclose(code.scale, anchors[matches.index(True)].scale)
        followed.add(matches.index(True))
    assert followed == {0, 1, 2, 3}


def test_a_kernel_follows_the_anchor_that_it_is_told_to() -> None:
    density = Density(make_codes(4), DensityConfig(kind="model-kde", bandwidth=0.0))
    for index, anchor in enumerate(make_codes(4)):
        code = density.draw(np.random.default_rng(7), followed=index)
        assert np.array_equal(code.latents, anchor.latents)


def test_a_token_kernel_takes_each_token_from_an_anchor_of_its_own() -> None:
    (code,) = draw("token-kde", 0.0)
    anchors = np.stack([anchor.latents for anchor in make_codes(4)])
    same = (anchors == code.latents).all(axis=-1)
    assert (same.sum(axis=0) == 1).all()
    assert len(set(same.argmax(axis=0).tolist())) == 4


def test_a_gaussian_has_the_anchors_mean_and_spread() -> None:
    drawn = np.stack([code.latents for code in draw("gaussian", 1.0, num=2_000)])
    anchors = np.stack([anchor.latents for anchor in make_codes(4)])
    np.testing.assert_allclose(drawn.mean(axis=0), anchors.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(drawn.std(axis=0), anchors.std(axis=0, ddof=1), rtol=0.15)


def test_a_subspace_keeps_the_correlations_between_tokens() -> None:
    drawn = np.stack([code.latents.ravel() for code in draw("subspace", 0.0, num=4_000)])
    anchors = np.stack([anchor.latents.ravel() for anchor in make_codes(4)])
    assert np.linalg.matrix_rank(drawn - drawn.mean(axis=0), tol=1e-2) == 3
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(anchors.T), atol=0.25)


def test_a_blend_lies_between_the_anchors() -> None:
    anchors = np.stack([anchor.latents for anchor in make_codes(4)])
    for code in draw("blend", 0.0, num=20):
        assert (code.latents <= anchors.max(axis=0) + 1e-5).all()
        assert (code.latents >= anchors.min(axis=0) - 1e-5).all()


def test_every_token_has_noise_of_its_own() -> None:
    anchors = np.stack([anchor.latents for anchor in make_codes(4)])
    (code,) = draw("gaussian", 0.5)
    noise = (code.latents - anchors.mean(axis=0)) / anchors.std(axis=0, ddof=1)
    assert np.unique(noise.round(6)).size == noise.size
    correlation = np.corrcoef(noise)[np.triu_indices(TOKENS, 1)]
    assert abs(correlation.mean()) < 0.1


def test_the_bandwidth_is_relative_to_the_spread() -> None:
    wide = [ModelCode(latents=100 * c.latents, scale=c.scale) for c in make_codes(4)]
    config = DensityConfig(kind="gaussian", bandwidth=0.5)
    one, other = (
        Density(codes, config).draw(np.random.default_rng(0)).latents
        for codes in (make_codes(4), wide)
    )
    np.testing.assert_allclose(100 * one, other, rtol=1e-4, atol=1e-4)


def test_scales_stay_within_what_the_anchors_have() -> None:
    scales = np.stack([anchor.scale for anchor in make_codes(4)])
    for code in draw("subspace", 5.0, num=20):
        assert (code.scale >= scales.min(axis=0)).all()
        assert (code.scale <= scales.max(axis=0)).all()


def test_one_anchor_has_a_density_too() -> None:
    for kind in ("model-kde", "subspace", "blend", "gaussian", "token-kde"):
        (code,) = draw(kind, 0.1, anchors=1)
        noise = code.latents - make_codes(1)[0].latents
        assert 0.05 < noise.std() < 0.2


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "kde"}, "kind must be one of token-kde"),
        ({"bandwidth": -1.0}, r"bandwidth must lie in \[0, 10\]"),
        ({"bandwidth": float("nan")}, "bandwidth must lie in"),
        ({"concentration": 0.0}, "concentration must lie in"),
    ],
)
def test_values_out_of_bounds_are_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DensityConfig(**values)  # type: ignore[arg-type]
