"""A tensor's numbers in passes of cache-sized chunks, from a checkpoint or an array. Does I/O.

The chunks of a checkpoint share one buffer, so a pass over a tensor of any size takes the memory of
one chunk. Not here: what is computed from them (``statistics``, ``quantiles``).
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import numpy_dtype

CHUNK_BYTES = 2**18
"""A chunk of float32 and its float64 copy, 768 KiB, stay in a core's second-level cache."""

SAMPLE_RUN = 128
"""A sample is taken in runs of this many elements: one system call each."""

_GOLDEN = 0.6180339887498949


@runtime_checkable
class Values(Protocol):
    """Flat numbers that can be passed over several times."""

    @property
    def size(self) -> int:
        """How many."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of every chunk."""

    def chunks(self) -> Iterator[npt.NDArray[Any]]:
        """Yield all numbers in order, CHUNK_BYTES at a time; each valid until the next is taken."""

    def sample(self, count: int) -> npt.NDArray[Any]:
        """Return about ``count`` numbers, spread evenly and always the same ones."""


class ArrayValues:
    """Values of an array in memory."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values.reshape(-1)
        self.size = self._values.size
        self.dtype = self._values.dtype

    def chunks(self) -> Iterator[npt.NDArray[Any]]:
        """See :class:`Values`."""
        step = CHUNK_BYTES // self.dtype.itemsize
        for start in range(0, self.size, step):
            yield self._values[start : start + step]

    def sample(self, count: int) -> npt.NDArray[Any]:
        """See :class:`Values`."""
        return self._values[:: -(-self.size // count)].copy()


class TensorValues:
    """Values of a checkpoint's tensor, read anew in every pass."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._checkpoint = checkpoint
        self._name = name
        self.dtype = numpy_dtype(checkpoint.tensors[name].dtype)
        self.size = checkpoint.tensors[name].num_bytes // self.dtype.itemsize

    def chunks(self) -> Iterator[npt.NDArray[Any]]:
        """See :class:`Values`."""
        step = CHUNK_BYTES // self.dtype.itemsize
        buffer = np.empty(min(self.size, step), self.dtype)
        for start in range(0, self.size, step):
            chunk = buffer[: self.size - start]
            self._checkpoint.read_into(self._name, start, chunk)
            yield chunk

    def sample(self, count: int) -> npt.NDArray[Any]:
        """See :class:`Values`."""
        run = min(SAMPLE_RUN, self.size)
        # Multiples of the golden ratio: spread, yet in step with no period of rows or columns.
        places = (np.arange(-(-count // run)) * _GOLDEN) % 1.0
        starts = (places * (self.size - run)).astype(np.int64)
        sample = np.empty((len(starts), run), self.dtype)
        self._checkpoint.read_runs(self._name, starts.tolist(), sample)
        return sample.reshape(-1)
