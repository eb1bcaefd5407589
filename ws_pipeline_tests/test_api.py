import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ws_pipeline as ws
from ws_pipeline.backbone.config import BackboneConfig
from ws_pipeline.errors import MissingInputError, WeightsError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "model.safetensors"
    state = {
        "fc1.weight": torch.randn(5, 7, generator=generator),
        "fc1.bias": torch.randn(5, generator=generator),
        "fc2.weight": torch.randn(2, 5, generator=generator),
        "steps": torch.tensor(3),
    }
    save_file(state, path)
    return path


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, ws_pipeline; sys.exit(bool({'torch', 'polars', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(hasattr(ws, name) for name in ws.__all__)
    assert set(ws.__all__) <= set(dir(ws))
    with pytest.raises(AttributeError, match="no attribute 'embedd'"):
        ws.embedd  # noqa: B018


def test_layers_come_with_their_bias_as_the_last_column(checkpoint: Path) -> None:
    first, second = ws.read_layers(checkpoint)
    assert (first.name, first.bias_name, first.role) == ("fc1.weight", "fc1.bias", "linear")
    assert first.matrix.shape == (5, 8)
    assert second.matrix.shape == (2, 5)


def test_tokens_hold_every_weight_once(checkpoint: Path) -> None:
    window = ws.tokenize(checkpoint, token_size=16)
    weights = np.concatenate([layer.matrix.ravel() for layer in ws.read_layers(checkpoint)])
    np.testing.assert_array_equal(window.tokens[window.mask].numpy(), weights)
    sliced = ws.tokenize(checkpoint, token_size=16, layout="sliced")
    assert sliced.tokens.shape[1] == 5 + 2


def test_embedding_names_the_model_and_its_layers(checkpoint: Path) -> None:
    config = BackboneConfig(
        token_size=16, width=24, num_layers=1, num_heads=2, latent_size=6, projection_size=4
    )
    backbone = ws.Backbone(config, generator=torch.Generator().manual_seed(0))
    table = ws.embed([checkpoint, checkpoint], backbone=backbone)
    assert table["model"].to_list() == [str(checkpoint)] * 2
    assert table["embedding"][0].equals(table["embedding"][1])
    assert [layer["name"] for layer in table["layers"][0]] == ["fc1.weight", "fc2.weight"]


def test_a_model_that_cannot_be_embedded_is_named(tmp_path: Path) -> None:
    save_file({"steps": torch.tensor(3)}, tmp_path / "count.safetensors")
    backbone = ws.Backbone(
        BackboneConfig(token_size=8, width=24, num_layers=1, num_heads=2, latent_size=6)
    )
    with pytest.raises(WeightsError, match=r"count\.safetensors.*no floating-point"):
        ws.embed(tmp_path / "count.safetensors", backbone=backbone)


def test_a_folder_that_is_no_zoo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no index\.parquet"):
        ws.load_zoo(tmp_path)


def test_generated_checkpoints_load_like_their_anchors(checkpoint: Path, tmp_path: Path) -> None:
    config = BackboneConfig(
        token_size=16, width=24, num_layers=1, num_heads=2, latent_size=16, projection_size=0
    )
    backbone = ws.Backbone(config, generator=torch.Generator().manual_seed(0))
    result = ws.generate([checkpoint], tmp_path / "new", backbone=backbone, num_models=2)
    assert [made.folder.name for made in result.models] == ["model-000", "model-001"]
    assert result.copied == ("steps",)
    for made in result.models:
        shapes = {layer.name: layer.matrix.shape for layer in ws.read_layers(made.folder)}
        assert shapes == {"fc1.weight": (5, 8), "fc2.weight": (2, 5)}
