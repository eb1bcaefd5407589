"""Anchors to new weights: exact without noise, every tensor given, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.errors import ConfigError, Reason, RefusedError, WeightsError
from ws_pipeline.generation.anchors import align_anchors
from ws_pipeline.generation.codes import encode_models
from ws_pipeline.generation.config import DensityConfig
from ws_pipeline.generation.generator import Generator
from ws_pipeline.generation.template import Template, Weights
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.zoo.weights import average_weights, flatten_weights
from ws_pipeline_tests.generation.conftest import TOKEN_SIZE, make_backbone

EXACT = DensityConfig(kind="model-kde", bandwidth=0.0)


@pytest.fixture(scope="module")
def opened(repos: list[Path]) -> tuple[Template, list[Weights]]:
    found = [Template.open(repo) for repo in repos]
    return found[0][0], [weights for _, weights in found]


def test_no_noise_and_a_full_latent_give_the_anchor_back(
    backbone: Backbone, opened: tuple[Template, list[Weights]]
) -> None:
    template, anchors = opened
    (drawn,) = Generator(backbone, template, anchors[:1], EXACT).draw(1, seed=3)
    assert drawn.keys() == anchors[0].keys()
    for name, array in anchors[0].items():
        assert drawn[name].dtype == array.dtype
        assert drawn[name].shape == array.shape
        np.testing.assert_allclose(drawn[name], array, rtol=1e-4, atol=2e-6)


def test_draws_near_each_anchor_come_anchor_by_anchor(
    backbone: Backbone, opened: tuple[Template, list[Weights]]
) -> None:
    template, anchors = opened
    near = DensityConfig(kind="model-kde", bandwidth=0.01)
    drawn = Generator(backbone, template, anchors, near).draw_near(2, seed=0)
    known = [flatten_weights(weights) for weights in anchors]
    nearest = [
        int(np.argmin([np.linalg.norm(flatten_weights(each) - one) for one in known]))
        for each in drawn
    ]
    assert nearest == [index for index in range(len(anchors)) for _ in range(2)]
    assert not np.array_equal(*map(flatten_weights, drawn[:2]))


def test_a_small_latent_loses_its_share_of_the_weights(
    opened: tuple[Template, list[Weights]],
) -> None:
    template, anchors = opened
    (again,) = Generator(make_backbone(TOKEN_SIZE // 2), template, anchors[:1], EXACT).reconstruct()
    matrices = zip(template.to_matrices(anchors[0]), template.to_matrices(again), strict=True)
    lost = [((b - a) ** 2).sum() / ((a - a.mean()) ** 2).sum() for a, b in matrices if a.std() > 0]
    assert np.median(lost) == pytest.approx(0.5, abs=0.15)


def test_draws_are_the_same_for_a_seed_whatever_their_number(
    backbone: Backbone, opened: tuple[Template, list[Weights]]
) -> None:
    template, anchors = opened
    generator = Generator(backbone, template, anchors, DensityConfig(bandwidth=0.3))
    few, many = generator.draw(2, seed=7), generator.draw(4, seed=7)
    np.testing.assert_array_equal(flatten_weights(few[1]), flatten_weights(many[1]))
    assert not np.array_equal(flatten_weights(few[0]), flatten_weights(few[1]))
    other = generator.draw(2, seed=8)
    assert not np.array_equal(flatten_weights(few[0]), flatten_weights(other[0]))


def test_a_window_with_halo_covers_a_model_of_many_windows(
    opened: tuple[Template, list[Weights]],
) -> None:
    template, anchors = opened
    layout = TokenLayout(token_size=TOKEN_SIZE)
    model = template.to_tokens(anchors[0], layout)
    assert model.num_tokens > 4 * 12
    short, long = (
        encode_models(make_backbone(window_size=size), [model])[0] for size in (12, 4_096)
    )
    np.testing.assert_allclose(short.latents, long.latents, atol=1e-5)


def test_a_tensor_that_is_not_given_is_an_error(opened: tuple[Template, list[Weights]]) -> None:
    template, anchors = opened
    matrices = template.to_matrices(anchors[0])
    with pytest.raises(WeightsError, match="Every layer must be given") as caught:
        template.to_weights(matrices[:-1])
    assert caught.value.reason is Reason.CONFLICT
    with pytest.raises(WeightsError, match="must be a matrix of"):
        template.to_weights([matrices[0][:-1], *matrices[1:]])
    holed = Template(plan=template.plan, carried={}, config=template.config)
    with pytest.raises(WeightsError, match=r"Every tensor must be given, 9 were not.*bn1"):
        holed.to_weights(matrices)


def test_weights_beyond_their_dtype_are_refused(opened: tuple[Template, list[Weights]]) -> None:
    template, anchors = opened
    matrices = [matrix * 1e300 for matrix in template.to_matrices(anchors[0])]
    with pytest.raises(WeightsError, match="smaller bandwidth") as caught:
        template.to_weights(matrices)
    assert caught.value.reason is Reason.NON_FINITE_WEIGHTS


def test_anchors_of_two_shapes_and_no_anchor_are_refused(
    backbone: Backbone, opened: tuple[Template, list[Weights]]
) -> None:
    template, _ = opened
    with pytest.raises(RefusedError, match="at least one anchor"):
        Generator(backbone, template, [], EXACT)
    shapes = {**template.shapes, "fc2.weight": (3, 3)}
    other = type("Other", (), {"shapes": shapes})()
    with pytest.raises(WeightsError, match=r"other/ has fc2.weight as \(3, 3\)"):
        template.require_same_shape(other, "other/")


def test_a_backbone_that_keeps_no_layer_scale_is_refused(
    opened: tuple[Template, list[Weights]],
) -> None:
    from dataclasses import replace

    template, anchors = opened
    config = replace(make_backbone().config, normalization="token")
    with pytest.raises(ConfigError, match="normalises by layer, this one does by token"):
        Generator(Backbone(config), template, anchors, EXACT)


def test_alignment_brings_anchors_together_and_leaves_their_functions(
    opened: tuple[Template, list[Weights]],
) -> None:
    template, anchors = opened
    aligned = align_anchors(anchors, template.config)

    def spread(models: list[Weights]) -> float:
        mean = flatten_weights(average_weights(models))
        return float(sum(np.linalg.norm(flatten_weights(each) - mean) for each in models))

    assert spread(aligned) < 0.95 * spread(anchors)
    for one, other in zip(anchors, aligned, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(
                np.sort(array, axis=None), np.sort(other[name], axis=None)
            )
    np.testing.assert_array_equal(flatten_weights(aligned[0]), flatten_weights(anchors[0]))


def test_a_family_without_known_symmetry_stays_as_it_is(
    opened: tuple[Template, list[Weights]],
) -> None:
    _, anchors = opened
    assert align_anchors(anchors, {"model_type": "unknown", "auto_map": {}}) == anchors
