"""What a zoo learns from: labelled inputs or running text, in three fixed splits. No I/O."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledDataset:
    """Inputs with one label each, int64 ``(rows,)``.

    Inputs are images ``(rows, channels, height, width)``, float32 in [0, 1] or uint8 in [0, 255]
    (a quarter of the memory; a batch divides by 255), or windows of text, int64 ``(rows,
    context)``.
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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        channels, height, width = self.train_inputs.shape[1:]
        return channels, height, width


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextDataset:
    """Running text as int64 character ids ``(characters,)``."""

    name: str
    vocab_size: int
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]


Dataset = LabelledDataset | TextDataset
