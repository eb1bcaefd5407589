"""Data sets that need no download: handwritten digits, and text that ships with Python.

Digits: 1,797 grey images of 8x8 that ship with scikit-learn (UCI Optical Recognition of Handwritten
Digits). Running text: the topics of ``pydoc_data``, 370 k characters without repetitions, split by
topic so that no paragraph stands on both sides. Labelled windows of text: the same, source and
docstrings of the standard library, Unicode's names of characters. Splits are fixed; validation is
not the test set. Reads from installed packages only; numpy, no torch.
"""

import ast
import gzip
import importlib.util
import unicodedata
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


WINDOW_SETS: dict[str, tuple[str, ...]] = {
    "kinds": ("reference", "docstrings", "source", "names"),
    "topics": ("string-methods", "typesmapping", "comparisons", "import"),
}
"""What a window of text is from: the labels, in order. ``kinds`` tells text that ships with Python
apart (characters alone tell most), ``topics`` four topics of the reference (much harder)."""
WINDOW_CONTEXT = 32
NUM_WINDOWS = {"train": 300, "val": 50, "test": 150}
"""Windows of each label. The first 70 % of its text are for training, 10 % for validation."""
SOURCE_MODULES = ("argparse", "inspect", "shutil", "tarfile", "zipfile")
DOCSTRING_MODULES = ("_pydecimal", "datetime", "difflib", "doctest", "random", "statistics")
MAX_LABEL_CHARACTERS = 60_000


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

DATASET_NAMES = (*IMAGE_SETS, *WINDOW_SETS, *TEXT_SETS)


def load_dataset(name: str) -> Dataset:
    """Load a data set by name.

    Raises:
        ConfigError: When there is none of that name; the message has the closest ones.
    """
    if name in IMAGE_SETS:
        return _load_images(name)
    if name in WINDOW_SETS:
        return _load_windows(name)
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
    plain = text.lower().translate(str.maketrans("‘’“”", "''\"\""))
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


def _read_label(label: str) -> str:
    """Read all text of one label of a window set."""
    if label == "names":
        names = (unicodedata.name(chr(code), "") for code in range(0x20, 0x2500))
        return "\n".join(name for name in names if name)
    if label == "source":
        return "\n".join(_read_module(module) for module in SOURCE_MODULES)
    if label == "docstrings":
        texts = [
            ast.get_docstring(node) or ""
            for module in DOCSTRING_MODULES
            for node in ast.walk(ast.parse(_read_module(module)))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        return "\n".join(text for text in texts if text)
    topics = read_topics()
    return topics[label] if label in topics else "\n\n".join(topics.values())


def _read_module(name: str) -> str:
    """Read the source of a module of the standard library, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise MissingInputError(f"Python's own module {name!r} must be there as source, it is not.")
    return Path(spec.origin).read_text(encoding="utf-8")


@cache
def _load_windows(name: str) -> LabelledDataset:
    """Cut each label's text in three stretches and draw windows from each, always the same.

    Headings and rules repeat in any text: a window that stands in an earlier stretch is left out.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    inputs: dict[str, list[NDArray[np.int64]]] = {split: [] for split in NUM_WINDOWS}
    labels: dict[str, list[NDArray[np.int64]]] = {split: [] for split in NUM_WINDOWS}
    texts = [encode_text(_read_label(text)[:MAX_LABEL_CHARACTERS]) for text in WINDOW_SETS[name]]
    seen: set[bytes] = set()
    for split, (start, stop) in {"train": (0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1)}.items():
        for label, ids in enumerate(texts):
            stretch = ids[int(start * len(ids)) : int(stop * len(ids))]
            windows = np.lib.stride_tricks.sliding_window_view(stretch, WINDOW_CONTEXT - 1)
            rows = generator.permutation(len(windows))[: 2 * NUM_WINDOWS[split]]
            fresh = [row for row in rows if windows[row].tobytes() not in seen]
            chosen = windows[np.sort(fresh[: NUM_WINDOWS[split]])]
            inputs[split].append(np.insert(chosen, 0, CLASS_ID, axis=1))
            labels[split].append(np.full(len(chosen), label))
        seen.update(row[1:].tobytes() for part in inputs[split] for row in part)
    parts: dict[str, Any] = {}
    for split, windows_of_split in inputs.items():
        parts[f"{split}_inputs"] = np.concatenate(windows_of_split)
        parts[f"{split}_labels"] = np.concatenate(labels[split])
    return LabelledDataset(
        name=name, num_labels=len(WINDOW_SETS[name]), vocab_size=VOCAB_SIZE, **parts
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
