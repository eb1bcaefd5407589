import math
from dataclasses import replace

import pytest
import torch

from ws_pipeline.backbone.evaluate import RECONSTRUCTION_SCHEMA, reconstruct_models
from ws_pipeline.backbone.model import untrained
from ws_pipeline_tests.backbone.tiny_corpus import TINY, build_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory):
    store, _, rows = build_corpus(tmp_path_factory.mktemp("corpus"))
    return store, rows


def test_one_row_per_layer_with_role_and_parameters(corpus):
    store, rows = corpus
    frame = reconstruct_models(untrained(TINY, 0), store, rows)
    assert dict(frame.schema) == RECONSTRUCTION_SCHEMA
    assert frame.height == 2 * rows.height
    assert frame["num_params"].sum() == rows["num_values"].sum()
    assert frame["relative_error"].is_finite().all()


def test_a_lossless_backbone_has_no_error_in_loud_and_quiet_layers(corpus):
    store, rows = corpus
    backbone = untrained(replace(TINY, latent_size=8), 0)
    with torch.no_grad():
        backbone.position_gain.zero_()
        backbone.embed_scale.weight.zero_()
    frame = reconstruct_models(backbone, store, rows, window=64, halo=0)
    assert frame["relative_error"].max() < 1e-3  # bf16 where the CPU has it


def test_predicting_the_mean_scores_one(corpus):
    store, rows = corpus
    backbone = untrained(TINY, 0)
    with torch.no_grad():
        backbone.to_token.weight.zero_()
    frame = reconstruct_models(backbone, store, rows)
    assert frame["relative_error"].to_list() == pytest.approx([1.0] * frame.height, rel=1e-4)


def test_the_halo_does_not_count_twice(corpus):
    store, rows = corpus
    backbone = untrained(TINY, 0)
    with torch.no_grad():
        backbone.to_token.weight.zero_()
    frame = reconstruct_models(backbone, store, rows, window=8, halo=3)
    assert frame["relative_error"].to_list() == pytest.approx([1.0] * frame.height, rel=1e-4)


def test_without_scale_features_the_decoded_error_is_unknown(corpus):
    store, rows = corpus
    frame = reconstruct_models(untrained(replace(TINY, use_scale=False), 0), store, rows)
    assert all(math.isnan(error) for error in frame["relative_error_decoded_scale"])
    assert frame["relative_error"].is_finite().all()
