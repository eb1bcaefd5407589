"""A batch of windows as it travels: raw values in their storage dtype and a small table. No I/O.

Mask, positions and scale are not in it: they follow from the table by arithmetic, where the
training runs (``backbone.expansion``). All of a batch is one run of bytes, so that it goes to the
device in one copy:

- ``pieces``, int64 ``(pieces, 7)``: a piece is a run of tokens of one layer in one window;
  the pieces of a window follow one another, the last one may be padding (zeros, but for its
  length);
- ``scales``, float32 ``(pieces, 4)``: (mean, log std) of the layer, then two powers of two by
  which stored values become true weights, one after the other;
- ``sections``: the values, one section per dtype, each in the order of the pieces.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

ALIGNMENT_BYTES = 16
"""Sections begin on a multiple of this, so that any dtype can be seen in place."""


class PieceField(IntEnum):
    """Columns of the table of pieces.

    A run is what is cut into tokens by itself, a row or a whole layer; ``SECTION`` is the section
    that the values lie in.
    """

    NUM_TOKENS = 0
    PLACE_IN_MODEL = 1
    LAYER = 2
    PLACE_IN_LAYER = 3
    TOKENS_PER_RUN = 4
    RUN_LENGTH = 5
    SECTION = 6


NUM_SCALES = 4

PIECE_BYTES = len(PieceField) * 8 + NUM_SCALES * 4
"""What a piece costs beside its values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Values of one dtype: where they begin in the batch's bytes, and how many they are."""

    dtype: str
    start_byte: int
    num_values: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowBatch:
    """Windows of one length; short ones end with padding.

    Attributes:
        data: Everything, ``(bytes,)``; it may lie in a buffer that is used again.
        num_pieces: Rows of the tables.
        sections: The values, dtype by dtype.
        num_windows: ``batch``.
        window_size: Tokens in each, padding included.
        token_size: Weights in a token.
        num_real_tokens: Tokens that are not padding.
        models: Which model each window is of; int64 ``(batch,)``.
    """

    data: npt.NDArray[np.uint8]
    num_pieces: int
    sections: tuple[Section, ...]
    num_windows: int
    window_size: int
    token_size: int
    num_real_tokens: int
    models: npt.NDArray[np.int64]

    @property
    def pieces(self) -> npt.NDArray[np.int64]:
        """The table of pieces; see `PieceField` for its columns."""
        num_bytes = self.num_pieces * len(PieceField) * 8
        return self.data[:num_bytes].view(np.int64).reshape(-1, len(PieceField))

    @property
    def scales(self) -> npt.NDArray[np.float32]:
        """(mean, log std, first factor, second factor) of each piece."""
        start = self.num_pieces * len(PieceField) * 8
        raw = self.data[start : start + self.num_pieces * NUM_SCALES * 4]
        return raw.view(np.float32).reshape(-1, NUM_SCALES)


def align(num_bytes: int) -> int:
    """Round up to a multiple of `ALIGNMENT_BYTES`."""
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
