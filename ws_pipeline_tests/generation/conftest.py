"""A backbone that loses nothing, and a population of CNNs with BatchNorm, trained once."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ws_pipeline.backbone.config import BackboneConfig
from ws_pipeline.backbone.model import Backbone, untrained
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ZooConfig
from ws_pipeline.zoo.train import train_zoo

TOKEN_SIZE = 16


def make_backbone(latent_size: int = TOKEN_SIZE, *, window_size: int = 12) -> Backbone:
    """Untrained, without a word about positions or scale: an orthogonal projection of tokens."""
    config = BackboneConfig(
        token_size=TOKEN_SIZE,
        width=24,
        num_layers=1,
        num_heads=2,
        latent_size=latent_size,
        projection_size=0,
        window_size=window_size,
    )
    backbone = untrained(config, seed=0)
    with torch.no_grad():
        backbone.position_gain.zero_()
        assert backbone.embed_scale is not None
        backbone.embed_scale.weight.zero_()
        for stack in (backbone.encoder, backbone.decoder):
            for part in stack.modules():
                if isinstance(part, nn.Linear):
                    part.weight.zero_()
    return backbone


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generation-zoo")
    cnn = GridConfig(
        name="cnn",
        architecture="cnn",
        dataset="digits",
        sizes={"channels": (4, 6, 8), "hidden_size": 16},
        factors=FactorGrid(values={"learning_rate": (1e-2,)}),
        seeds=(0, 1, 2, 3),
        num_epochs=3,
    )
    train_zoo(ZooConfig(name="cnns", populations=(cnn,)), folder, show_progress=False)
    return folder


@pytest.fixture(scope="session")
def repos(zoo: Path) -> list[Path]:
    return sorted((zoo / "repos").iterdir())
