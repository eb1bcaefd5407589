"""A layer's matrix [W|b] from its tensors, part by part, in reused memory. Does I/O.

A part of the weight is read once, and turned and joined with its bias while it is in a core's
cache; between the two somebody may look at it (``packing`` measures it). Only a transposed layer
(GPT-2's Conv1D) is read in slabs of SLAB_BYTES, since its rows lie across the file. Not here: which
layer comes when (``packing``).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import numpy_dtype
from ws_pipeline.weights.matrix import output_geometry
from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.values import CHUNK_BYTES, TensorValues

SLAB_BYTES = 64 * 2**20
"""How much of a transposed tensor is in memory at a time."""

STRIPE_BYTES = 2**18
"""How much of a slab is turned at a time: it is copied, measured and turned within the second-level
cache, which takes 1.6 ns per number on a Zen 4 core; turning whole matrices takes 4."""

MIN_STRIPE_ROWS = 16
"""One cache line of float32: a narrower stripe would fetch each line several times."""

Part = npt.NDArray[Any]


class Buffers:
    """Memory that the layers of a model use one after another: a fresh page costs a fault."""

    def __init__(self) -> None:
        self._memory: dict[str, npt.NDArray[np.uint8]] = {}

    def take(self, name: str, size: int, dtype: np.dtype[Any]) -> Part:
        """Return ``size`` numbers; what was taken under the same name before is overwritten."""
        num_bytes = size * dtype.itemsize
        memory = self._memory.get(name)
        if memory is None or memory.size < num_bytes:
            memory = self._memory[name] = np.empty(num_bytes, np.uint8)
        return memory[:num_bytes].view(dtype)


class LayerBlocks:
    """The parts of one layer.

    Args:
        checkpoint: The model.
        layer: A tokenised layer.
        buffers: Which this layer uses from now on.

    Attributes:
        bias: In the layer's dtype; None without one.
    """

    def __init__(self, checkpoint: Checkpoint, layer: Layer, buffers: Buffers) -> None:
        self._checkpoint = checkpoint
        self._buffers = buffers
        self._layer = layer
        self._dtype = numpy_dtype(layer.dtype)
        # numpy moves bfloat16 and the 8-bit floats one by one, integers of their size do not.
        self._bits = np.dtype(f"u{self._dtype.itemsize}")
        self._geometry = output_geometry(layer)
        self.bias = checkpoint.read_flat(layer.bias_name) if layer.bias_name else None

    def parts(self) -> Iterator[tuple[int, Part]]:
        """Yield (first row, some rows of the weight as they are stored, contiguous).

        A layer that lies in the file as its matrix does is cut anywhere, and the row means nothing.
        Each part is valid until the next is taken.
        """
        if self._geometry[0] > 1:
            return self._stripes()
        if self.bias is not None:
            return self._rows()
        chunks = TensorValues(self._checkpoint, self._layer.name).chunks()
        return ((0, chunk) for chunk in chunks)

    def join(self, row: int, part: Part) -> Part:
        """Return a part as it stands in the matrix: turned, with its biases as last column.

        Valid until the next part is taken.
        """
        before, _, after = self._geometry
        if before == 1 and self.bias is None:
            return part
        layer, source = self._layer, part.view(self._bits)
        num_rows = source.size // (before * after)
        flat = self._buffers.take("joined", num_rows * layer.matrix_cols, self._bits)
        block = flat.reshape(num_rows, layer.matrix_cols)
        turned = block[:, : layer.cols].reshape(num_rows, before, after)
        turned[...] = source.reshape(before, num_rows, after).transpose(1, 0, 2)
        if self.bias is not None:
            block[:, -1] = self.bias[row : row + num_rows].view(self._bits)
        return block

    def _rows(self) -> Iterator[tuple[int, Part]]:
        """Yield rows of a layer that lies in the file as its matrix does, but for the bias."""
        layer, num_bytes = self._layer, self._dtype.itemsize * self._layer.matrix_cols
        step = min(layer.rows, max(1, CHUNK_BYTES // num_bytes))
        weights = self._buffers.take("part", step * layer.cols, self._dtype)
        for row in range(0, layer.rows, step):
            part = weights[: min(step, layer.rows - row) * layer.cols]
            self._checkpoint.read_into(layer.name, row * layer.cols, part)
            yield row, part

    def _stripes(self) -> Iterator[tuple[int, Part]]:
        """Yield stripes of a layer whose outputs are not the first axis of its stored weight."""
        before, rows, after = self._geometry
        rows_that_fit = STRIPE_BYTES // (self._dtype.itemsize * self._layer.cols)
        step = min(rows, max(MIN_STRIPE_ROWS, rows_that_fit))
        stripe = self._buffers.take("part", before * step * after, self._bits)
        row = 0
        for slab in self._slabs(step):
            for start in range(0, slab.shape[1], step):
                num_rows = min(step, slab.shape[1] - start)
                part = stripe[: before * num_rows * after]
                part.reshape(before, num_rows, after)[...] = slab[:, start : start + num_rows]
                yield row, part.view(self._dtype)
                row += num_rows

    def _slabs(self, step: int) -> Iterator[Part]:
        """Yield the weight, ``(before, some rows, after)``, in multiples of ``step`` rows."""
        before, rows, after = self._geometry
        name, row_bytes = self._layer.name, self._dtype.itemsize * self._layer.cols
        width = step * max(1, SLAB_BYTES // (row_bytes * step))
        memory = self._buffers.take("slab", before * min(width, rows) * after, self._bits)
        for row in range(0, rows, width):
            run = min(width, rows - row) * after
            slab = memory[: before * run].reshape(before, run)
            if width >= rows:
                self._checkpoint.read_into(name, 0, slab.reshape(-1))
            else:
                starts = [(index * rows + row) * after for index in range(before)]
                self._checkpoint.read_runs(name, starts, slab)
            yield slab.reshape(before, -1, after)
