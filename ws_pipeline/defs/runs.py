"""Folders of trainings, and which model of a recipe is the current one. Does I/O; no Dagster.

`runs/<recipe>/<digest12>/` holds one training: the digest is the job's, over everything that
decides the weights, so the same training lands in the same folder and goes on there, and another
one never writes over it. `runs/<recipe>/current.json` names the folder of the latest one.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ws_pipeline.backbone.config import EMBEDDING_VERSION
from ws_pipeline.defs.digests import file_version
from ws_pipeline.errors import MissingInputError
from ws_pipeline.recipes import Recipe
from ws_pipeline.storage.store import Store

if TYPE_CHECKING:
    import polars as pl

    from ws_pipeline.backbone.model import Backbone

POINTER = "current.json"

EMBEDDINGS_PREFIX = "backbone/embeddings"
"""Of the tables of that asset."""

TRAINED = "backbone"
UNTRAINED = "untrained"
"""The control that evaluation asks for: the same network as it was initialised."""


def run_folder(home: Path, recipe_name: str, job_digest: str) -> Path:
    """The folder of one training."""
    return home / "runs" / recipe_name / job_digest[:12]


def point_to(folder: Path) -> None:
    """Make this training its recipe's current one."""
    pointer = folder.parent / POINTER
    staged = pointer.with_suffix(".tmp")
    staged.write_text(json.dumps({"folder": folder.name}))
    staged.replace(pointer)


def find_model(home: Path, recipe_name: str) -> Path:
    """The folder that `Backbone.from_pretrained` loads for a recipe.

    Raises:
        MissingInputError: If the recipe was not trained in this home.
    """
    pointer = home / "runs" / recipe_name / POINTER
    if pointer.is_file():
        folder = pointer.parent / str(json.loads(pointer.read_text())["folder"]) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise MissingInputError(
        f"There is no trained model of recipe {recipe_name!r} under {home}: "
        f"run `ws-pipeline train --recipe {recipe_name}` first."
    )


def load_backbones(home: Path, chosen: Recipe) -> dict[str, "Backbone"]:
    """The recipe's trained model and its untrained control, on the best device there is."""
    from ws_pipeline.backbone.loading import best_device, load_backbone
    from ws_pipeline.backbone.model import untrained

    trained = load_backbone(find_model(home, chosen.name))
    control = untrained(chosen.backbone, chosen.training.seed)
    return {TRAINED: trained, UNTRAINED: control.to(best_device())}


def vectors_version(model: Path) -> str:
    """What decides the vectors that a model's folder gives: its weights and how they are pooled."""
    return f"{file_version(model / 'model.safetensors')}.{EMBEDDING_VERSION}"


def read_embeddings(store: Store, model: Path) -> "pl.DataFrame | None":
    """The stored embeddings (hub_id, repo_id, ..) that a model's folder made, None without any."""
    import polars as pl

    version = vectors_version(model)
    for key in store.tables.keys(EMBEDDINGS_PREFIX):
        made = (pl.col("representation") == TRAINED) & (pl.col("weights") == version)
        found = store.tables.scan(key).filter(made).collect()
        if found.height:
            return found
    return None
