from dataclasses import replace

import pytest

from ws_pipeline.backbone.model import count_parameters
from ws_pipeline.backbone.presets import PRESETS
from ws_pipeline.backbone.views import is_paired


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("tiny", 0.419),
        ("generation", 0.427),
        ("small", 21.4),
        ("permuted", 0.423),
        ("sane-cnn", 202),
        ("sane-resnet18", 1018),
        ("hub-small", 456),
        ("hub-large", 908),
    ],
)
def test_a_preset_has_the_parameters_that_it_says(name: str, millions: float):
    assert count_parameters(PRESETS[name]().backbone) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_parts_fit_each_other(name: str):
    preset = PRESETS[name]()
    assert preset.layout.kind == preset.backbone.layout
    assert preset.layout.token_size == preset.backbone.token_size
    assert preset.backbone.projection_size > 0 or preset.loss.contrastive_weight == 0.0
    assert preset.backbone.use_scale or preset.loss.scale_weight == 0.0


def test_permuted_is_tiny_but_for_its_views_and_what_they_ask_for():
    tiny, permuted = PRESETS["tiny"](), PRESETS["permuted"]()
    assert is_paired(permuted.views, permuted.loss)
    assert (permuted.layout, permuted.training) == (tiny.layout, tiny.training)
    assert replace(permuted.views, permutation=False) == tiny.views
    assert replace(permuted.loss, contrastive_weight=0.0) == tiny.loss
    assert replace(permuted.backbone, projection_size=0) == tiny.backbone


def test_sane_is_trained_as_its_paper_says():
    preset = PRESETS["sane-resnet18"]()
    backbone, training = preset.backbone, preset.training
    assert (backbone.width, backbone.num_layers, backbone.num_heads) == (2048, 8, 16)
    assert (backbone.latent_size, backbone.position_code, backbone.layout) == (
        128,
        "learned",
        "sliced",
    )
    assert (training.window_size, training.learning_rate, training.weight_decay) == (
        256,
        1e-4,
        3e-9,
    )
    assert preset.loss.contrastive_weight == 0.05
