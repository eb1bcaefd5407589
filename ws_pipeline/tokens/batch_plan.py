"""One batch before its values are read: which windows, what to read, where it goes. No I/O.

Not here: how it is worked out (``window_plan``), what reads it (``layer_values``).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.window_batch import PIECE_BYTES, Section, WindowBatch, align
from ws_pipeline.weights.dtypes import numpy_dtype

Integers = npt.NDArray[np.int64]

ITEM_BYTES: Integers = np.array([numpy_dtype(name).itemsize for name in DTYPES], dtype=np.int64)
"""Of each of `DTYPES`."""

F64, F32 = DTYPES.index("F64"), DTYPES.index("F32")


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSpans:
    """Windows as runs of tokens, each array ``(windows,)``.

    Attributes:
        models: Row of the table.
        starts: First token of the window in its model.
        stops: One past its last token; at least one and at most a window further.
    """

    models: Integers
    starts: Integers
    stops: Integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Reads:
    """What to read, in the order of the batch's bytes; each array ``(reads,)``.

    Attributes:
        models: Row of the table.
        windows: Which window of the batch.
        dtypes: Stored dtype, an index into `DTYPES`.
        starts: First value in the model's ``values.<dtype>``.
        counts: How many values.
        targets: First byte in the batch.
        exponents: Of the one layer that float64 values are of, since they are rounded to float32
            on the way; 0 for all others.
    """

    models: Integers
    windows: Integers
    dtypes: Integers
    starts: Integers
    counts: Integers
    targets: Integers
    exponents: Integers

    def part(self, start: int, stop: int) -> "Reads":
        """Return the reads [start, stop)."""
        return Reads(
            models=self.models[start:stop],
            windows=self.windows[start:stop],
            dtypes=self.dtypes[start:stop],
            starts=self.starts[start:stop],
            counts=self.counts[start:stop],
            targets=self.targets[start:stop],
            exponents=self.exponents[start:stop],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """One batch before its values are read; the fields are those of `WindowBatch`."""

    num_bytes: int
    pieces: Integers
    scales: npt.NDArray[np.float32]
    sections: tuple[Section, ...]
    reads: Reads
    models: Integers
    window_size: int
    token_size: int
    num_real_tokens: int

    def begin(self, out: npt.NDArray[np.uint8] | None = None) -> WindowBatch:
        """Return the batch with its tables filled and its values still to be read.

        Args:
            out: Where it goes if it is long enough; else, and if None, it takes fresh memory.
        """
        if out is None or len(out) < self.num_bytes:
            out = np.empty(self.num_bytes, dtype=np.uint8)
        batch = WindowBatch(
            data=out[: self.num_bytes],
            num_pieces=len(self.pieces),
            sections=self.sections,
            num_windows=len(self.models),
            window_size=self.window_size,
            token_size=self.token_size,
            num_real_tokens=self.num_real_tokens,
            models=self.models,
        )
        batch.pieces[:] = self.pieces
        batch.scales[:] = self.scales
        return batch


def max_batch_bytes(*, window_size: int, batch_size: int, token_size: int) -> int:
    """Return what no batch exceeds: full tokens of 32-bit values, each of another layer."""
    slots = window_size * batch_size
    return align(slots * PIECE_BYTES) + slots * token_size * 4 + len(DTYPES) * align(1)
