"""Image data sets of the Hub by name: Parquet files with encoded images and labels. Does I/O.

``hub.OWNER.NAME.SIZE`` is the data set OWNER/NAME at SIZE pixels, from its own Parquet files or
else from the Hub's conversion. They are read by polars and decoded by Pillow; no code of the data
set's runs. Files are kept under ``<data folder>/hub``, so a second time needs no network.
"""

import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.datasets.image_files import (
    MAX_ARRAY_BYTES,
    MAX_FOLDER_IMAGES,
    Images,
    read_image,
)
from ws_pipeline.zoo.datasets.user_images import MAX_IMAGE_SIZE, split_images

HUB_NAME = re.compile(
    r"hub\.(?P<owner>[A-Za-z0-9_-]+)\.(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)\.(?P<size>[1-9][0-9]{0,2})"
)
"""Dots, since the name becomes part of a repo's name, which takes no slash."""
CONVERTED_REVISION = "refs/convert/parquet"
"""Where the Hub keeps every data set as Parquet files."""
MAX_FILE_BYTES = 8 * 1024**3
"""Most bytes of a split's Parquet files together."""
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
"""Words of a file's path that tell its split, the first one found counts."""
LABEL_COLUMNS = ("label", "labels", "fine_label", "coarse_label", "class", "target")


@cache
def load_hub_images(
    name: str, folder: Path | None = None, *, endpoint: str | None = None
) -> LabelledDataset:
    """Load an image data set of the Hub.

    Args:
        name: ``hub.OWNER.NAME.SIZE``.
        folder: The data folder; None keeps downloads in huggingface_hub's own cache.
        endpoint: Of the hub; None is huggingface_hub's default ($HF_ENDPOINT).

    Raises:
        MissingInputError: When it is neither here nor to be had over the network.
        ConfigError: When it is no image classification data set, or beyond the bounds.
    """
    match = HUB_NAME.fullmatch(name)
    if match is None or int(match["size"]) > MAX_IMAGE_SIZE:
        raise ConfigError(
            f"A data set of the Hub must be hub.OWNER.NAME.SIZE with at most {MAX_IMAGE_SIZE} "
            f"pixels, got {name!r}."
        )
    repo_id, size = f"{match['owner']}/{match['name']}", int(match["size"])
    files = _fetch(repo_id, folder, endpoint)
    train, test = (_read_split(files[split], repo_id, size) for split in SPLITS)
    num_labels = int(max(train.labels.max(), test.labels.max())) + 1
    return split_images(name, train, test, num_labels)


def _fetch(repo_id: str, folder: Path | None, endpoint: str | None) -> dict[str, list[Path]]:
    """Download the Parquet files of both splits, or find them where they are kept."""
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    cache_dir = folder / "hub" if folder else None
    try:
        revision, names = _find_files(repo_id, endpoint)
        for split, own in names.items():
            _check_files(repo_id, split, own)
        wanted = [name for own in names.values() for name, _ in own]
        root = snapshot_download(
            repo_id,
            repo_type="dataset",
            cache_dir=cache_dir,
            revision=revision,
            allow_patterns=wanted,
            endpoint=endpoint,
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        try:
            root = snapshot_download(
                repo_id, repo_type="dataset", cache_dir=cache_dir, local_files_only=True
            )
        except (LocalEntryNotFoundError, OSError):
            raise MissingInputError(
                f"The data set {repo_id!r} could not be had from the Hub ({type(error).__name__}): "
                "check its name and the network, or put its images into a folder "
                "NAME/train/<label>/ and NAME/test/<label>/ of WS_DATA and name it "
                "folder-NAME-SIZE."
            ) from error
        kept = [(str(path.relative_to(root)), 0) for path in Path(root).rglob("*.parquet")]
        names = {split: _of_split(kept, split) for split in SPLITS}
    return {split: [Path(root) / name for name, _ in own] for split, own in names.items()}


def _find_files(repo_id: str, endpoint: str | None) -> tuple[str, dict[str, list[tuple[str, int]]]]:
    """Find the revision with Parquet files of both splits, and their names and sizes."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    api = HfApi(endpoint=endpoint)
    for revision in ("main", CONVERTED_REVISION):
        try:
            info = api.dataset_info(repo_id, revision=revision, files_metadata=True)
        except RevisionNotFoundError:
            continue
        files = [(file.rfilename, file.size or 0) for file in info.siblings or ()]
        names = {split: _of_split(files, split) for split in SPLITS}
        if all(names.values()):
            return revision, names
    raise ConfigError(f"{repo_id!r} must have Parquet files of train and test, it has none.")


def _of_split(files: list[tuple[str, int]], split: str) -> list[tuple[str, int]]:
    """List a split's Parquet files of the first configuration."""
    for word in SPLITS[split]:
        pattern = re.compile(rf"(^|[/_.-]){word}([/_.-])")
        own = sorted(
            file for file in files if file[0].endswith(".parquet") and pattern.search(file[0])
        )
        if own:
            first = Path(own[0][0]).parent
            return [file for file in own if Path(file[0]).parent == first]
    return []


def _check_files(repo_id: str, split: str, files: list[tuple[str, int]]) -> None:
    num_bytes = sum(size for _, size in files)
    if num_bytes > MAX_FILE_BYTES:
        raise ConfigError(
            f"The {split} files of {repo_id!r} must have at most {MAX_FILE_BYTES} bytes, they have "
            f"{num_bytes}."
        )


def _read_split(paths: list[Path], repo_id: str, size: int) -> Images:
    """Decode a split's images in order."""
    table = pl.scan_parquet(paths)
    schema = table.collect_schema()
    image, label = _find_columns(dict(schema), repo_id)
    frame = table.select(pl.col(image).struct.field("bytes"), pl.col(label)).collect()
    colour = _colour_of(frame["bytes"][0], repo_id)
    num_channels = len(colour)
    num_rows = len(frame)
    if num_rows > MAX_FOLDER_IMAGES or num_rows * num_channels * size * size > MAX_ARRAY_BYTES:
        raise ConfigError(
            f"{repo_id!r} must be at most {MAX_FOLDER_IMAGES} images and {MAX_ARRAY_BYTES} bytes "
            f"at size {size}, it has {num_rows} images."
        )
    inputs = np.empty((num_rows, num_channels, size, size), np.uint8)
    for place, encoded in enumerate(frame["bytes"]):
        where = f"image {place} of {repo_id!r}"
        source = io.BytesIO(encoded or b"")
        inputs[place] = read_image(source, size=size, name=where, mode=colour)
    labels = frame[label].to_numpy().astype(np.int64)
    if labels.min() < 0:
        raise ConfigError(f"{repo_id!r} must have a label from 0 on for every image of its splits.")
    return Images(inputs, labels)


def _find_columns(schema: dict[str, Any], repo_id: str) -> tuple[str, str]:
    """Find the column of encoded images and that of labels."""
    images = [
        name
        for name, kind in schema.items()
        if isinstance(kind, pl.Struct) and any(field.name == "bytes" for field in kind.fields)
    ]
    labels = [name for name in LABEL_COLUMNS if name in schema and schema[name].is_integer()]
    if not images or not labels:
        raise ConfigError(
            f"{repo_id!r} must have a column of images and one of integer labels "
            f"({', '.join(LABEL_COLUMNS)}), it has {', '.join(schema)}."
        )
    return images[0], labels[0]


def _colour_of(encoded: bytes | None, repo_id: str) -> str:
    """Return L for grey images and RGB for all others, going by the first one."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(encoded or b"")) as image:
            return "L" if image.mode in ("1", "L", "I;16") else "RGB"
    except (UnidentifiedImageError, OSError) as error:
        raise ConfigError(f"{repo_id!r} must hold images that Pillow can read: {error}") from None
