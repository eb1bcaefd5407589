"""Data sets that need no download: handwritten digits and Python's own language reference.

Digits: 1,797 grey images of 8x8 that ship with scikit-learn (UCI Optical Recognition of Handwritten
Digits). Text: the topics of ``pydoc_data``, 370 k characters without repetitions, split by topic so
that no paragraph stands on both sides. Splits are fixed; validation is not the test set. Reads from
installed packages only; numpy, no torch.
"""

import gzip
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.errors import ConfigError, MissingInputError, Reason

SPLIT_SEED = 20_260_101
"""Seed of the one permutation of the digits. All variants share it, so a fine-tune's test images
were never in its parent's training set."""
NUM_TRAIN_IMAGES = 1_097
NUM_VAL_IMAGES = 200
NUM_TEST_IMAGES = 500

PAD_ID, UNKNOWN_ID, CLASS_ID = 0, 1, 2
CHARACTERS = "\n abcdefghijklmnopqrstuvwxyz0123456789.,;:'\"()[]{}<>=+-*/%_|"
"""The vocabulary after the three special ids: lower case, and what program text needs."""
VOCAB_SIZE = 3 + len(CHARACTERS)

TEXT_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "text": {"val": ("execmodel",), "test": ("comparisons", "import", "calls")},
    "text-strings": {
        "train": ("formatstrings", "string-methods"),
        "val": ("identifiers",),
        "test": ("strings",),
    },
    "text-collections": {
        "train": ("typesseq",),
        "val": ("dict", "subscriptions"),
        "test": ("typesmapping",),
    },
}
"""Topics of each text set. ``text`` trains on every topic that no set names."""


TOPIC_SETS: dict[str, tuple[str, ...]] = {
    "topics": ("formatstrings", "string-methods", "specialnames", "debugger"),
    "topics-types": ("types", "typesseq", "typesmapping", "compound"),
}
"""Which topic does a window of text come from: the labels, in order."""
TOPIC_CONTEXT = 32
NUM_TOPIC_WINDOWS = {"train": 800, "val": 60, "test": 150}
"""Windows of each topic. The first 70 % of its text are for training, 10 % for validation."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledDataset:
    """Inputs with one label each, int64 ``(rows,)``.

    Inputs are images, float32 ``(rows, 1, height, width)`` in [0, 1], or windows of text, int64
    ``(rows, context)``, the first id being :data:`CLASS_ID`.
    """

    name: str
    num_labels: int
    vocab_size: int
    train_inputs: NDArray[Any]
    train_labels: NDArray[np.int64]
    val_inputs: NDArray[Any]
    val_labels: NDArray[np.int64]
    test_inputs: NDArray[Any]
    test_labels: NDArray[np.int64]

    @property
    def is_text(self) -> bool:
        """Whether inputs are text rather than images."""
        return self.vocab_size > 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextDataset:
    """Running text as int64 character ids ``(characters,)``."""

    name: str
    vocab_size: int
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]


Dataset = LabelledDataset | TextDataset


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

DATASET_NAMES = (*IMAGE_SETS, *TOPIC_SETS, *TEXT_SETS)


def load_dataset(name: str) -> Dataset:
    """Load a data set by name.

    Raises:
        ConfigError: When there is none of that name; the message has the closest ones.
    """
    if name in IMAGE_SETS:
        return _load_images(name)
    if name in TOPIC_SETS:
        return _load_topics(name)
    if name in TEXT_SETS:
        return _load_text(name)
    close = get_close_matches(name, DATASET_NAMES, n=3) or DATASET_NAMES
    raise ConfigError(
        f"There is no data set {name!r}; did you mean {', '.join(close)}?",
        reason=Reason.UNKNOWN_NAME,
    )


@cache
def _load_images(name: str) -> LabelledDataset:
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


def encode_text(text: str) -> NDArray[np.int64]:
    """Turn text into character ids; what the vocabulary lacks becomes :data:`UNKNOWN_ID`."""
    plain = text.lower().translate(str.maketrans("‘’“”", "''\"\""))  # noqa: RUF001
    ids = {character: 3 + index for index, character in enumerate(CHARACTERS)}
    return np.array([ids.get(character, UNKNOWN_ID) for character in plain], dtype=np.int64)


@cache
def read_topics() -> dict[str, str]:
    """Read the language reference, every paragraph once: in the longest topic that has it."""
    from pydoc_data.topics import topics

    seen: set[str] = set()
    kept: dict[str, str] = {}
    for topic in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        paragraphs = []
        for paragraph in topics[topic].split("\n\n"):
            if paragraph.strip() and paragraph.strip() not in seen:
                seen.add(paragraph.strip())
                paragraphs.append(paragraph)
        kept[topic] = "\n\n".join(paragraphs)
    return kept


def _join_topics(topics: Sequence[str]) -> NDArray[np.int64]:
    text = read_topics()
    return encode_text("\n\n".join(text[topic] for topic in topics if topic in text))


@cache
def _load_topics(name: str) -> LabelledDataset:
    """Cut each topic's text in three stretches and draw windows from each, always the same."""
    generator = np.random.default_rng(SPLIT_SEED)
    inputs: dict[str, list[NDArray[np.int64]]] = {"train": [], "val": [], "test": []}
    labels: dict[str, list[NDArray[np.int64]]] = {"train": [], "val": [], "test": []}
    for label, topic in enumerate(TOPIC_SETS[name]):
        ids = _join_topics([topic])
        stretches = np.split(ids, [int(0.7 * len(ids)), int(0.8 * len(ids))])
        for (split, count), stretch in zip(NUM_TOPIC_WINDOWS.items(), stretches, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(stretch, TOPIC_CONTEXT - 1)
            rows = np.sort(generator.choice(len(windows), min(count, len(windows)), replace=False))
            inputs[split].append(np.insert(windows[rows], 0, CLASS_ID, axis=1))
            labels[split].append(np.full(len(rows), label))
    parts: dict[str, Any] = {}
    for split in inputs:
        parts[f"{split}_inputs"] = np.concatenate(inputs[split])
        parts[f"{split}_labels"] = np.concatenate(labels[split])
    return LabelledDataset(
        name=name, num_labels=len(TOPIC_SETS[name]), vocab_size=VOCAB_SIZE, **parts
    )


@cache
def _load_text(name: str) -> TextDataset:
    sets = TEXT_SETS[name]
    named = {topic for parts in TEXT_SETS.values() for part in parts.values() for topic in part}
    rest = tuple(topic for topic in sorted(read_topics()) if topic not in named)
    return TextDataset(
        name=name,
        vocab_size=VOCAB_SIZE,
        train=_join_topics(sets.get("train", rest)),
        val=_join_topics(sets["val"]),
        test=_join_topics(sets["test"]),
    )
