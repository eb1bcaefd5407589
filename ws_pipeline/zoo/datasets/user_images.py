"""Image data sets from a user's folder: which files they are, and how they are split. Does I/O.

A data set ``NAME`` lies anywhere below ``<data folder>/NAME``, under the file names that it is
published with; ``folder-NAME-SIZE`` is any folder of ``train/<label>/*`` and ``test/<label>/*``
images. The published test set is the test set; validation is drawn from the training set by a fixed
seed. Not here: the formats (``image_files``).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.datasets.digits import SPLIT_SEED
from ws_pipeline.zoo.datasets.image_files import (
    Images,
    read_cifar,
    read_idx_pair,
    read_image_folder,
    read_stl10,
    read_svhn,
)

MAX_VAL_IMAGES = 5_000
"""Validation images: so many, or a tenth of the training set where that is less."""
MAX_IMAGE_SIZE = 512
LOW_SUFFIX = "-low"
"""After a name of :data:`USER_SETS`: the lower half of its labels."""
FOLDER_NAME = re.compile(r"folder-(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)-(?P<size>[1-9][0-9]{0,3})")

Reader = Callable[..., Images]
"""Takes the files of one split."""

_IDX_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_IDX_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))

USER_SETS: dict[str, tuple[Reader, tuple[str, ...], tuple[str, ...], int]] = {
    "mnist": (read_idx_pair, _IDX_TRAIN, _IDX_TEST, 10),
    "fashion-mnist": (read_idx_pair, _IDX_TRAIN, _IDX_TEST, 10),
    "kmnist": (read_idx_pair, _IDX_TRAIN, _IDX_TEST, 10),
    "cifar10": (partial(read_cifar, num_label_bytes=1), _CIFAR10_TRAIN, ("test_batch.bin",), 10),
    "cifar100": (partial(read_cifar, num_label_bytes=2), ("train.bin",), ("test.bin",), 100),
    "svhn": (read_svhn, ("train_32x32.mat",), ("test_32x32.mat",), 10),
    "stl10": (read_stl10, ("train_X.bin", "train_y.bin"), ("test_X.bin", "test_y.bin"), 10),
}
"""Reader, files of the training and of the test set, and number of labels of each data set."""


@cache
def load_user_images(name: str, folder: Path) -> LabelledDataset:
    """Load a data set of :data:`USER_SETS` or an image folder.

    Raises:
        MissingInputError: When its files are not there; the message says which and where.
        ConfigError: When they are not what they should be.
    """
    if name.removesuffix(LOW_SUFFIX) in USER_SETS and name not in USER_SETS:
        return _keep_low_labels(load_user_images(name.removesuffix(LOW_SUFFIX), folder), name)
    match = FOLDER_NAME.fullmatch(name)
    if match is not None:
        train, test, num_labels = _read_folder(folder / match["name"], int(match["size"]))
    else:
        reader, train_files, test_files, num_labels = USER_SETS[name]
        train = reader(*_find(folder / name, train_files))
        test = reader(*_find(folder / name, test_files))
    highest = max(train.labels.max(), test.labels.max())
    if highest >= num_labels:
        raise ConfigError(f"{name!r} must have labels below {num_labels}, it has {highest}.")
    return split_images(name, train, test, num_labels)


def _keep_low_labels(dataset: LabelledDataset, name: str) -> LabelledDataset:
    """Keep the images of the lower half of the labels: another task on the same kind of images."""
    num_labels = dataset.num_labels // 2
    parts: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        labels = getattr(dataset, f"{split}_labels")
        parts[f"{split}_inputs"] = getattr(dataset, f"{split}_inputs")[labels < num_labels]
        parts[f"{split}_labels"] = labels[labels < num_labels]
    return replace(dataset, name=name, num_labels=num_labels, **parts)


def _find(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find files by name anywhere below a folder, gzipped or not."""
    there = {path.name: path for path in sorted(folder.rglob("*"), reverse=True)}
    missing = [name for name in names if name not in there and f"{name}.gz" not in there]
    if missing:
        raise MissingInputError(
            f"The data set {folder.name!r} must lie below {folder}; there is no "
            f"{', '.join(missing)} (nor its .gz). Put its published files there, or set "
            "WS_DATA to the folder that has them."
        )
    return [there.get(name) or there[f"{name}.gz"] for name in names]


def _read_folder(folder: Path, size: int) -> tuple[Images, Images, int]:
    """Read the splits of an image folder and the number of its labels."""
    if size > MAX_IMAGE_SIZE:
        raise ConfigError(f"Images must be scaled to at most {MAX_IMAGE_SIZE} pixels, got {size}.")
    if not (folder / "train").is_dir() or not (folder / "test").is_dir():
        raise MissingInputError(
            f"{folder} must hold train/<label>/ and test/<label>/ with images, it does not. Put "
            "them there, or set WS_DATA to the folder that has them."
        )
    labels = sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir())
    train, test = (
        read_image_folder(folder / split, size=size, labels=labels) for split in ("train", "test")
    )
    if len(train.labels) < 2 or not len(test.labels):
        raise MissingInputError(f"{folder} must hold images under train/ and test/, it does not.")
    return train, test, len(labels)


def split_images(name: str, train: Images, test: Images, num_labels: int) -> LabelledDataset:
    """Draw validation images from the training set by the fixed seed."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train.labels))
    num_val = max(1, min(MAX_VAL_IMAGES, len(order) // 10))
    return LabelledDataset(
        name=name,
        num_labels=num_labels,
        vocab_size=0,
        train_inputs=train.inputs[order[num_val:]],
        train_labels=train.labels[order[num_val:]],
        val_inputs=train.inputs[order[:num_val]],
        val_labels=train.labels[order[:num_val]],
        test_inputs=test.inputs,
        test_labels=test.labels,
    )
