"""Zoos that several test files read, trained once."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ParentConfig, ZooConfig
from ws_pipeline.zoo.dataset_repo import write_report
from ws_pipeline.zoo.diversity import measure_diversity
from ws_pipeline.zoo.train import train_zoo

TRANSFORMER_SIZES = {"width": 16, "num_layers": 1, "mlp_size": 24}


def transformers_config() -> ZooConfig:
    """One small model of each of transformers' classes, and a fine-tune with a new head."""
    common = {"sizes": TRANSFORMER_SIZES, "num_epochs": 1, "batch_size": 128}
    learning_rate = FactorGrid(values={"learning_rate": (3e-3,)})
    return ZooConfig(
        name="transformers",
        populations=(
            GridConfig(
                name="vit",
                architecture="vit",
                dataset="digits",
                factors=learning_rate,
                keep_epochs=(0,),
                **common,
            ),
            GridConfig(
                name="bert", architecture="bert", dataset="kinds", factors=learning_rate, **common
            ),
            GridConfig(
                name="gpt2", architecture="gpt2", dataset="text", factors=learning_rate, **common
            ),
            GridConfig(
                name="vit-low",
                architecture="vit",
                dataset="digits-low",
                num_epochs=1,
                parent=ParentConfig(population="vit", new_head=True),
            ),
        ),
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    train_zoo(zoo_config("tiny"), folder, show_progress=False)
    return folder


@pytest.fixture(scope="session")
def tiny_table(tiny_folder: Path) -> pl.DataFrame:
    return measure_diversity(tiny_folder)


@pytest.fixture(scope="session")
def reported_folder(
    tiny_folder: Path, tiny_table: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny zoo with its report."""
    folder = tmp_path_factory.mktemp("reported") / "tiny"
    shutil.copytree(tiny_folder, folder)
    write_report(folder, zoo_config("tiny"), tiny_table)
    return folder


@pytest.fixture(scope="session")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    train_zoo(transformers_config(), folder, show_progress=False)
    return folder


def small_vit_zoo() -> ZooConfig:
    """The blueprint's structure with ten models: two parents, four fine-tunes of each."""
    full = zoo_config("vit-digits")
    small = []
    for grid in full.populations:
        values = {**grid.factors.values, "learning_rate": (3e-3,)}
        sizes = {"width": 16, "num_layers": 1, "num_heads": 2, "mlp_size": 24, "patch_size": 4}
        small.append(
            replace(
                grid,
                sizes={} if grid.parent else sizes,
                factors=replace(grid.factors, values=values),
                seeds=(0,),
                num_epochs=3 if grid.parent else 4,
                keep_epochs=(2,) if grid.parent else (),
                keep_every=3,
            )
        )
    return replace(full, name="vit-small", populations=tuple(small))


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    train_zoo(small_vit_zoo(), folder, show_progress=False)
    return folder
