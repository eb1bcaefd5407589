"""The stored numbers of models, from a shard or straight from a checkpoint. Does I/O.

Both fill a buffer with values in their storage dtype, as ``values.<dtype>`` of a shard holds them.
Not here: which values make a window (``window_plan``), what becomes of their scale (the device).
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import IntegrityError, Reason, WeightsError
from ws_pipeline.storage.ranges import RangeReader, read_range
from ws_pipeline.tokens.batch_plan import F64, ITEM_BYTES, Reads
from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.records import TokenLayer, join_float32_layers
from ws_pipeline.tokens.shard_format import SHARD_LIMITS
from ws_pipeline.tokens.window_batch import WindowBatch
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import widen
from ws_pipeline.weights.header import LENGTH_BYTES, parse_header, read_header_bytes
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.packing import VALUES_PREFIX, plan_checkpoint
from ws_pipeline.weights.plan import Layer

_ITEM_BYTES: list[int] = ITEM_BYTES.tolist()


@runtime_checkable
class ModelValues(Protocol):
    """The stored values of one model."""

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:
        """Fill ``out`` with values of a dtype (index into `DTYPES`) from the ``start``-th on."""


class ShardValues:
    """Values of a shard, by range reads; its header is read when it is first needed."""

    def __init__(self, ranges: RangeReader, sha256: str) -> None:
        self._ranges = ranges
        self._sha256 = sha256
        self._tensors: dict[int, tuple[int, int]] | None = None

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:
        """See :class:`ModelValues`."""
        self._ranges.read_into(self._sha256, self._place(dtype, start, len(out)), out)

    def warm(self, dtype: int, start: int, count: int) -> None:
        """Fetch values that will be read soon."""
        num_bytes = count * _ITEM_BYTES[dtype]
        self._ranges.warm(self._sha256, self._place(dtype, start, num_bytes), num_bytes)

    def _place(self, dtype: int, start: int, num_bytes: int) -> int:
        """Return the byte of the shard at which a value lies."""
        if self._tensors is None:
            self._tensors = self._read_header()
        first, size = self._tensors.get(dtype, (0, 0))
        offset = start * _ITEM_BYTES[dtype]
        if offset + num_bytes > size:
            raise IntegrityError(
                f"Shard {self._sha256[:12]} holds {size} bytes of {DTYPES[dtype]} values, not "
                f"{offset + num_bytes}; its layer table belongs to another."
            )
        return first + offset

    def _read_header(self) -> dict[int, tuple[int, int]]:
        """Return first byte and size of the values of each dtype."""
        ranges, sha256 = self._ranges, self._sha256
        file_bytes = ranges.num_bytes(sha256)
        raw = read_range(ranges, sha256, 0, min(LENGTH_BYTES, file_bytes))
        header_bytes = read_header_bytes(raw, file_bytes=file_bytes, limits=SHARD_LIMITS)
        raw = read_range(ranges, sha256, 0, header_bytes)
        header = parse_header(raw, file_bytes=file_bytes, limits=SHARD_LIMITS)
        return {
            DTYPES.index(tensor.dtype): (header_bytes + tensor.start, tensor.num_bytes)
            for tensor in header.tensors
            if tensor.name == VALUES_PREFIX + tensor.dtype and tensor.dtype in DTYPES
        }


class CheckpointValues:
    """Values of a checkpoint as one float32 run; the layer that was read last is kept."""

    def __init__(self, checkpoint: Checkpoint, layers: list[Layer]) -> None:
        self._checkpoint = checkpoint
        self._layers = layers
        sizes = [layer.rows * layer.matrix_cols for layer in layers]
        self._starts = np.cumsum([0, *sizes])
        self._last: tuple[int, npt.NDArray[np.float32]] | None = None

    @classmethod
    def open(cls, path: str | Path) -> tuple["CheckpointValues", list[TokenLayer]]:
        """Open and plan a checkpoint; its values and its token layers."""
        checkpoint = Checkpoint.open(path)
        plan, statistics = plan_checkpoint(checkpoint)
        pairs = zip(plan.layers, statistics, strict=True)
        tokenised = [(layer, measured) for layer, measured in pairs if measured is not None]
        if not tokenised:
            raise WeightsError(
                f"{path} holds no floating-point weights.", reason=Reason.NOTHING_TO_TOKENIZE
            )
        values = cls(checkpoint, [layer for layer, _ in tokenised])
        moments = [(measured.mean, measured.std) for _, measured in tokenised]
        return values, join_float32_layers(values._layers, moments)

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:  # noqa: ARG002 - F32
        """See :class:`ModelValues`."""
        target = np.frombuffer(out, dtype=np.float32)
        done = 0
        while done < len(target):
            layer = int(np.searchsorted(self._starts, start + done, side="right")) - 1
            first = start + done - int(self._starts[layer])
            piece = self._read_layer(layer)[first : first + len(target) - done]
            target[done : done + len(piece)] = piece
            done += len(piece)

    def _read_layer(self, index: int) -> npt.NDArray[np.float32]:
        if self._last is None or self._last[0] != index:
            layer = self._layers[index]
            weight = self._checkpoint.read(layer.name)
            bias = self._checkpoint.read_flat(layer.bias_name) if layer.bias_name else None
            matrix = _to_float32(widen(join_matrix(layer, weight, bias)))
            self._last = (index, matrix.reshape(-1))
        return self._last[1]


def read_values(batch: WindowBatch, reads: Reads, models: list[ModelValues]) -> None:
    """Read all values of a batch.

    Args:
        batch: With its tables filled.
        reads: Of its plan.
        models: Values of each read's model.
    """
    view = batch.data.data
    columns = (reads.dtypes, reads.starts, reads.counts, reads.targets, reads.exponents)
    for values, dtype, start, count, target, exponent in zip(
        models, *(column.tolist() for column in columns), strict=True
    ):
        if dtype == F64:
            _read_doubles(values, start, exponent, view[target : target + 4 * count])
        else:
            values.read_into(dtype, start, view[target : target + count * _ITEM_BYTES[dtype]])


def _read_doubles(values: ModelValues, start: int, exponent: int, out: memoryview) -> None:
    """Read float64 values of one layer as true weights rounded to float32."""
    stored = np.empty(len(out) // 4, dtype=np.float64)
    values.read_into(F64, start, stored.view(np.uint8).data)
    target = np.frombuffer(out, dtype=np.float32)
    target[:] = _to_float32(np.ldexp(stored, exponent))


def _to_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrowed: npt.NDArray[np.float32] = values.astype(np.float32, copy=False)
    return narrowed
