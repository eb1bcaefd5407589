"""Write a zoo's models as hub repos, and copy them into a hub's folder. All I/O of repos is here.

Files whose bytes do not change are not touched, so a hub that looks at times and digests sees no
change. A repo appears in the hub's folder whole or not at all.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from safetensors.torch import load_file, save
from torch import Tensor

from ws_pipeline.errors import MissingInputError

INDEX_FILE = "index.parquet"
REPOS_FOLDER = "repos"


def write_repo(folder: Path, state: Mapping[str, Tensor], *, config: str, card: str) -> int:
    """Write one repo folder.

    Args:
        state: Tensors by their published names.

    Returns:
        Size of model.safetensors in bytes.
    """
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    weights = save(tensors, metadata={"format": "pt"})  # transformers wants the format named
    folder.mkdir(parents=True, exist_ok=True)
    write_if_changed(folder / "model.safetensors", weights)
    write_if_changed(folder / "config.json", config.encode())
    write_if_changed(folder / "README.md", card.encode())
    return len(weights)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read a repo's tensors by their published names."""
    return load_file(folder / "model.safetensors")


def write_if_changed(path: Path, content: bytes) -> bool:
    """Replace a file in one step, unless it has these bytes already."""
    if path.is_file() and path.read_bytes() == content:
        return False
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".write-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).chmod(0o644)  # mkstemp gives 0600; a hub served by another user must read it
    Path(name).replace(path)
    return True


def publish_zoo(folder: Path, hub_folder: Path, owner: str) -> int:
    """Copy a trained zoo's repos to ``hub_folder/owner/<name>``, those that differ.

    Cards name their ``base_model`` under ``owner``, whatever owner the zoo was trained with.

    Returns:
        Number of repos that were new or changed.

    Raises:
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        raise MissingInputError(f"{folder} must hold a trained zoo, it has no {INDEX_FILE}.")
    table = pl.read_parquet(index).filter(pl.col("status") == "trained")
    (hub_folder / owner).mkdir(parents=True, exist_ok=True)
    return sum(
        _publish_repo(folder / REPOS_FOLDER / name, hub_folder / owner / name, old, owner)
        for name, old in table.select("name", "owner").iter_rows()
    )


def _publish_repo(source: Path, target: Path, old_owner: str, owner: str) -> bool:
    files = {path.name: path.read_bytes() for path in sorted(source.iterdir())}
    card = files["README.md"].decode()
    files["README.md"] = card.replace(f"{old_owner}/", f"{owner}/").encode()
    if target.is_dir():
        changes = [write_if_changed(target / name, content) for name, content in files.items()]
        return any(changes)
    staging = Path(tempfile.mkdtemp(dir=target.parent.parent, prefix=".publish-"))
    try:
        for name, content in files.items():
            (staging / name).write_bytes(content)
        staging.chmod(0o755)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return True
