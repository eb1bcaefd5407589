import numpy as np
import pytest

from ws_pipeline.backbone.latent_sums import LATENT_NAMES, LatentSums


def summed(latents: np.ndarray, layer: np.ndarray, num_layers: int, parts: int = 1) -> LatentSums:
    sums = LatentSums.zeros(num_layers, latents.shape[1])
    for rows in np.array_split(np.arange(len(latents)), parts):
        sums.add(layer[rows], latents[rows])
    return sums


def named(sums: LatentSums, layer: int) -> dict[str, float]:
    return dict(zip(LATENT_NAMES, sums.spectra()[layer], strict=True))


def test_sums_over_parts_give_the_moments_and_singular_values_of_the_whole():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(50, 4)) * [1, 2, 3, 4] + 1
    layer = np.repeat([0, 2], [30, 20])
    sums = summed(latents, layer, 3, parts=7)
    for index, part in ((0, latents[:30]), (2, latents[30:])):
        expected = np.concatenate((part.mean(0), part.std(0)))
        np.testing.assert_allclose(sums.moments()[index], expected)
        values = np.linalg.svd(part - part.mean(0), compute_uv=False)
        found = named(sums, index)
        assert found["stable_rank"] == pytest.approx((values**2).sum() / values[0] ** 2 / 4)
        assert found["log_rms"] == pytest.approx(np.log(np.sqrt((part**2).mean())))
        assert found["mean_share"] == pytest.approx(
            (part.mean(0) ** 2).sum() / (part**2).sum(1).mean()
        )
        square = (part**2).sum(1)
        assert found["norm_spread"] == pytest.approx(square.std() / square.mean())
    assert not sums.moments()[1].any()


def test_neither_the_order_of_tokens_nor_a_rotation_of_latents_changes_the_spectrum():
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(40, 5)) * [1, 2, 3, 4, 5] + 2
    layer = np.zeros(40, dtype=np.int64)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    moved = latents[rng.permutation(40)] @ rotation
    np.testing.assert_allclose(
        summed(moved, layer, 1).spectra(), summed(latents, layer, 1).spectra(), rtol=1e-9
    )
    assert np.abs(summed(moved, layer, 1).moments() - summed(latents, layer, 1).moments()).max() > 1


@pytest.mark.parametrize("latents", [np.zeros((0, 3)), np.zeros((4, 3)), np.ones((1, 3))])
def test_nothing_one_token_and_equal_tokens_are_finite(latents):
    spectra = summed(latents, np.zeros(len(latents), dtype=np.int64), 2).spectra()
    assert np.isfinite(spectra).all()
    assert np.abs(spectra).max() < 30
