import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ws_pipeline.backbone.config import BackboneConfig
from ws_pipeline.backbone.model import (
    Backbone,
    count_parameters,
    num_parameters,
    pool_latents,
    untrained,
)
from ws_pipeline.errors import MissingInputError
from ws_pipeline_tests.backbone.tiny_corpus import TINY, make_windows


def spread_out(backbone: Backbone, seed: int = 0) -> Backbone:
    """Gives every matrix random weights, so that nothing is close to the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return backbone.eval()


def test_shapes():
    clean = make_windows()
    output = Backbone(TINY)(*clean)
    assert output.latents.shape == (3, 7, 6)
    assert output.prediction.tokens.shape == (3, 7, 8)
    assert output.scale.shape == (3, 7, 2)
    assert output.projection.shape == (3, 4)


def test_switched_off_parts_are_absent():
    config = replace(TINY, use_scale=False, projection_size=0)
    output = Backbone(config)(*make_windows())
    assert output.scale is None
    assert output.projection is None


@pytest.mark.parametrize("code", ["learned", "summed", "banded"])
def test_gradients_reach_every_parameter_at_the_first_step(code: str):
    backbone = Backbone(replace(TINY, position_code=code, max_positions=7))
    output = backbone(*make_windows())
    loss = output.prediction.tokens.square().sum() + output.scale.square().sum()
    (loss + output.projection.square().sum()).backward()
    without = [
        name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert without == []


def test_padding_is_never_attended_to():
    backbone = spread_out(Backbone(TINY))
    clean = make_windows()
    padded = ~clean.mask.any(dim=-1)
    noise = torch.randn(clean.tokens.shape)
    other = clean._replace(
        tokens=torch.where(clean.mask, clean.tokens, 1e3 * noise),
        positions=torch.where(padded[..., None], 999, clean.positions),
        scale=torch.where(padded[..., None], torch.tensor([5.0, 2.0]), clean.scale),
    )
    first, second = backbone(*clean), backbone(*other)
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.projection, second.projection)
    assert torch.equal(first.prediction.tokens, second.prediction.tokens)


def test_a_shorter_padding_changes_nothing():
    backbone = spread_out(Backbone(TINY))
    clean = make_windows(batch=3, window=7)
    cut = type(clean)(*(part[2:, :5] for part in clean))
    torch.testing.assert_close(backbone(*cut).latents, backbone(*clean).latents[2:, :5])


def test_a_window_without_any_token_gives_no_nan():
    clean = make_windows()
    empty = clean._replace(tokens=clean.tokens * 0, mask=torch.zeros_like(clean.mask))
    output = Backbone(TINY)(*empty)
    assert all(part.isfinite().all() for part in (output.latents, output.projection, output.scale))


def test_a_fresh_backbone_is_an_orthogonal_projection():
    config = BackboneConfig(token_size=16, width=48, latent_size=12, num_heads=4)
    backbone = untrained(config, seed=0)
    with torch.no_grad():
        backbone.position_gain.zero_()
        backbone.embed_scale.weight.zero_()
    clean = make_windows(batch=8, window=32, token_size=16)
    whole = clean.mask.all(dim=-1)
    output = backbone(*clean)
    truth = backbone.normalize(clean.tokens, clean.mask, clean.scale).tokens[whole]
    error = (output.prediction.tokens[whole] - truth).square().mean() / truth.square().mean()
    assert error.item() == pytest.approx(1 - 12 / 16, abs=0.03)


def test_a_uniform_start_draws_as_torch_does_and_from_the_seed_alone():
    config = replace(TINY, initialization="uniform")
    first, again, other = (untrained(config, seed=seed) for seed in (3, 3, 4))
    layers = [module for module in first.modules() if isinstance(module, torch.nn.Linear)]
    for layer in layers:
        bound = layer.in_features**-0.5
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.25)
    assert torch.equal(first.embed.weight, again.embed.weight)
    assert not torch.equal(first.embed.weight, other.embed.weight)
    assert first.position_gain.eq(1.0).all()


def test_reconstruct_returns_true_weights():
    config = replace(TINY, latent_size=8, use_scale=False)
    backbone = untrained(config, seed=0)
    with torch.no_grad():
        backbone.position_gain.zero_()
    clean = make_windows()
    back = backbone.reconstruct(*clean)
    assert (back - clean.tokens).norm() < 0.05 * clean.tokens.norm()


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, same, other = untrained(TINY, 1), untrained(TINY, 1), untrained(TINY, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    assert not torch.equal(one.embed.weight, other.embed.weight)


def test_saved_and_loaded_is_equal(tmp_path: Path):
    backbone = spread_out(Backbone(replace(TINY, max_positions=5)))
    backbone.save_pretrained(tmp_path / "model")
    assert {"model.safetensors", "config.json"} <= {p.name for p in (tmp_path / "model").iterdir()}
    state = torch.get_rng_state()
    loaded = Backbone.from_pretrained(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.config == backbone.config
    assert not loaded.training
    clean = make_windows()
    assert torch.equal(loaded(*clean).latents, backbone(*clean).latents)


def test_a_folder_without_weights_or_config_is_refused(tmp_path: Path):
    untrained(TINY, 0).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MissingInputError, match=r"needs model\.safetensors"):
        Backbone.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(MissingInputError, match=r"needs config\.json"):
        Backbone.from_pretrained(tmp_path)


def test_a_pickle_is_not_taken_for_weights(tmp_path: Path):
    backbone = untrained(TINY, 0)
    backbone.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(MissingInputError):
        Backbone.from_pretrained(tmp_path)


def test_config_json_is_the_config(tmp_path: Path):
    untrained(TINY, 0).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["latent_size"] == 6
    assert values["normalization"] == "layer"


def test_pooling_counts_real_tokens_only():
    latents = torch.tensor([[[1.0], [3.0], [100.0]]])
    real = torch.tensor([[True, True, False]])
    assert pool_latents(latents, real).item() == 2.0


def test_counting_on_the_meta_device_is_counting():
    assert count_parameters(TINY) == num_parameters(untrained(TINY, 0))
