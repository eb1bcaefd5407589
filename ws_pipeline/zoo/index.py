"""The files of a trained zoo and its index table. No torch."""

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from ws_pipeline.errors import MissingInputError, NoSpaceError

INDEX_FILE = "index.parquet"
SUMMARY_FILE = "summary.json"
REPOS_FOLDER = "repos"
PREDICTIONS_FOLDER = "predictions"
POPULATIONS_FOLDER = "populations"

INDEX_SCHEMA: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "name": pl.String,
    "owner": pl.String,
    "model_id": pl.String,
    "population": pl.String,
    "family": pl.String,
    "dataset": pl.String,
    "stage": pl.String,
    "epoch": pl.Int64,
    "is_final": pl.Boolean,
    "base_model": pl.String,
    "root": pl.String,
    "status": pl.String,
    "diverged_epoch": pl.Int64,
    "num_params": pl.Int64,
    "num_bytes": pl.Int64,
    "accuracy": pl.Float64,
    "train_accuracy": pl.Float64,
    "val_accuracy": pl.Float64,
    "loss": pl.Float64,
    "generalization_gap": pl.Float64,
    "factors": pl.String,
    "train_losses": pl.List(pl.Float64),
    "val_accuracies": pl.List(pl.Float64),
}
"""One row per published repo, and one per model that diverged or whose parent did."""


def read_index(folder: Path) -> pl.DataFrame:
    """Read the rows of a zoo's published repos.

    Raises:
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise MissingInputError(f"{folder} must hold a trained zoo, it has no {INDEX_FILE}.")
    return pl.read_parquet(path).filter(pl.col("status") == "trained")


def repos_are_there(folder: Path, table: pl.DataFrame) -> bool:
    """Whether every repo that an index's rows name has its weights."""
    names = table.filter(pl.col("status") == "trained")["name"]
    return all((folder / REPOS_FOLDER / name / "model.safetensors").is_file() for name in names)


def write_if_changed(path: Path, content: bytes) -> bool:
    """Replace a file in one step, unless it has these bytes already.

    Raises:
        NoSpaceError: When the disk is full.
    """
    if path.is_file() and path.read_bytes() == content:
        return False
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".write-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)  # mkstemp gives 0600; a hub served by another user must read it
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise NoSpaceError(f"The disk is full at {path}; free some space.") from error
        raise
    return True
