"""Text that ships with Python: running text by topic, and labelled windows of text.

Running text: the topics of ``pydoc_data``, 370 k characters without repetitions, split by topic so
that no paragraph stands on both sides. Labelled windows: the same, source and docstrings of the
standard library, Unicode's names of characters. Splits are fixed. Reads from installed packages
only; numpy, no torch.
"""

import ast
import importlib.util
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.datasets.dataset import LabelledDataset, TextDataset
from ws_pipeline.zoo.datasets.digits import SPLIT_SEED

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
def load_windows(name: str) -> LabelledDataset:
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
def load_text(name: str) -> TextDataset:
    """Load running text, by its name in :data:`TEXT_SETS`."""
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
