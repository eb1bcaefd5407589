"""Handwritten digits that ship with scikit-learn, and four variants of them.

1,797 grey images of 8x8 (UCI Optical Recognition of Handwritten Digits), one fixed split that all
variants share. Reads scikit-learn's own file; numpy, no torch.
"""

import gzip
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.datasets.dataset import LabelledDataset

SPLIT_SEED = 20_260_101
"""Seed of the one permutation of the digits. All variants share it, so a fine-tune's test images
were never in its parent's training set."""
NUM_TRAIN_IMAGES = 1_097
NUM_VAL_IMAGES = 200
NUM_TEST_IMAGES = 500


@cache
def read_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the digits from scikit-learn's own file.

    Read directly: importing ``sklearn.datasets`` costs 3 s, this 0.05 s.

    Returns:
        Images ``(1797, 1, 8, 8)`` in [0, 1] and labels ``(1797,)``.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise MissingInputError("The digits come with scikit-learn: install scikit-learn.")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    images = (table[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    return images, table[:, -1]


def _invert(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return 1 - images


def _shift(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """One pixel to the right and down, zeros coming in."""
    shifted = np.zeros_like(images)
    shifted[..., 1:, 1:] = images[..., :-1, :-1]
    return shifted


def _add_noise(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normal noise of a quarter of the range, the same for every reader."""
    noise = np.random.default_rng(SPLIT_SEED).normal(0, 0.25, images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32)


IMAGE_SETS: dict[str, tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], int]] = {
    "digits": (np.asarray, 10),
    "digits-inverted": (_invert, 10),
    "digits-shifted": (_shift, 10),
    "digits-noisy": (_add_noise, 10),
    "digits-low": (np.asarray, 5),
}
"""How the images of each variant are made, and how many labels it keeps (the lowest ones)."""


@cache
def load_digits(name: str) -> LabelledDataset:
    """Load the digits or a variant, by its name in :data:`IMAGE_SETS`."""
    change, num_labels = IMAGE_SETS[name]
    images, labels = read_digits()
    images = change(images)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    bounds = [NUM_TRAIN_IMAGES, NUM_TRAIN_IMAGES + NUM_VAL_IMAGES]
    parts: dict[str, Any] = {}
    for split, rows in zip(("train", "val", "test"), np.split(order, bounds), strict=True):
        kept = rows[labels[rows] < num_labels]
        parts[f"{split}_inputs"] = images[kept]
        parts[f"{split}_labels"] = labels[kept]
    return LabelledDataset(name=name, num_labels=num_labels, vocab_size=0, **parts)
