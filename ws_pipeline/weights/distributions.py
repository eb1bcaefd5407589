"""Moments and quantiles of one tensor's numbers, exact and in one pass. No I/O of its own.

A meter is shown the numbers chunk by chunk while somebody else does something with them (writes
them to a shard): wide types with float64 accumulation and bracketed ranks, 8- and 16-bit types by
counting how often each of their few values occurs, small tensors as a whole. Order does not matter
but for the last bits of the moments. Where a sample misled about the ranks, ``values`` are read
again. Refused are NaN, infinities and float64 beyond float32, in which everything later computes.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.dtypes import widen
from ws_pipeline.weights.moments import Moments
from ws_pipeline.weights.row_statistics import measure_rows, rank_places
from ws_pipeline.weights.values import ArrayValues, Values

MAX_SORTED = 2**13
"""Tensors up to this many elements are sorted, several models at once."""

MIN_COUNTED = 2**18
"""Narrow tensors of fewer elements are widened: going through a table of 65,536 costs more."""

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """What is known of one set of numbers; ``quantiles`` at :data:`QUANTILES`."""

    moments: Moments
    low: float
    high: float
    quantiles: tuple[float, ...]


@runtime_checkable
class Meter(Protocol):
    """Measures what it is shown; every number of a tensor has to be shown once."""

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """Take in a flat, contiguous chunk of the tensor's dtype."""

    def finish(self) -> Distribution:
        """Return what is known, after the last chunk.

        Raises:
            WeightsError: ``non_finite_weights`` or ``weights_out_of_range``.
        """


def open_meter(name: str, values: Values) -> Meter:
    """Return the meter for a tensor.

    Args:
        name: Of the layer, for errors.
        values: To take a sample from beforehand, and to read again where that misleads.
    """
    if values.dtype.itemsize <= 2 and values.size >= MIN_COUNTED:
        return _NarrowMeter(name, values)
    if values.dtype.itemsize >= 4 and values.size > MAX_SORTED:
        return _StreamMeter(name, values)
    return _WholeMeter(name)


def measure_values(name: str, values: Values | npt.NDArray[Any]) -> Distribution:
    """Measure one tensor's numbers; WeightsError with the layer's ``name`` if they are unfit."""
    if isinstance(values, np.ndarray):
        values = ArrayValues(values)
    meter = open_meter(name, values)
    for chunk in values.chunks():
        meter.add(chunk)
    return meter.finish()


class _WholeMeter:
    """Keeps everything: of 8- and 16-bit types up to MIN_COUNTED numbers, else up to MAX_SORTED."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._chunks: list[npt.NDArray[Any]] = []

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """See :class:`Meter`."""
        self._chunks.append(widen(chunk.copy()))

    def finish(self) -> Distribution:
        """See :class:`Meter`."""
        wide = np.concatenate(self._chunks)
        if wide.size > MAX_SORTED:
            return measure_values(self._name, wide)
        row = measure_rows(wide.reshape(1, -1))
        low, high = float(row.lows[0]), float(row.highs[0])
        require_fit(self._name, low, high)
        moments = Moments(count=row.count, mean=float(row.means[0]), squares=float(row.squares[0]))
        quantiles = tuple(float(number) for number in row.quantiles[0])
        return Distribution(moments=moments, low=low, high=high, quantiles=quantiles)


class _StreamMeter:
    """Measures float32 and float64 numbers chunk by chunk."""

    def __init__(self, name: str, values: Values) -> None:
        from ws_pipeline.weights.quantiles import RankCounter  # compiled loops

        self._name = name
        places = rank_places(values.size)
        ranks = sorted({rank for below, above, _ in places for rank in (below, above)})
        self._counter = RankCounter(values, ranks)

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """See :class:`Meter`."""
        with np.errstate(all="ignore"):
            self._counter.add(chunk)

    def finish(self) -> Distribution:
        """See :class:`Meter`."""
        low, high = self._counter.range
        require_fit(self._name, low, high)
        return _describe(self._counter.moments, low, high, self._counter.finish())


class _NarrowMeter:
    """Counts each of the few values that an 8- or 16-bit type has."""

    def __init__(self, name: str, values: Values) -> None:
        self._name = name
        self._bits = np.dtype(f"u{values.dtype.itemsize}")
        self._table, self._order = _value_table(values.dtype)
        self._counts = np.zeros(self._table.size, np.int64)

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """See :class:`Meter`."""
        from ws_pipeline.weights.tally import count_values  # compiled loops

        count_values(chunk.view(self._bits), self._counts)

    def finish(self) -> Distribution:
        """See :class:`Meter`."""
        counts = self._counts[self._order]
        seen = np.flatnonzero(counts)
        numbers, counts = self._table[self._order][seen], counts[seen]
        # NaN sorts last.
        low, high = float(numbers[0]), float(numbers[-1])
        require_fit(self._name, low, high)
        size = int(counts.sum())
        mean = float((numbers * counts).sum()) / size
        squares = float((np.square(numbers - mean) * counts).sum())
        ends = np.cumsum(counts)
        ranks = {rank for below, above, _ in rank_places(size) for rank in (below, above)}
        found = {rank: float(numbers[np.searchsorted(ends, rank, side="right")]) for rank in ranks}
        return _describe(Moments(count=size, mean=mean, squares=squares), low, high, found)


@lru_cache(maxsize=8)
def _value_table(dtype: np.dtype[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return every value of an 8- or 16-bit type by its bits, and what puts them in order."""
    every = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):
        table = every.astype(np.float64) + 0.0
    return table, np.argsort(table, kind="stable")


def _describe(moments: Moments, low: float, high: float, found: dict[int, float]) -> Distribution:
    quantiles = tuple(
        _interpolate(found[below], found[above], share)
        for below, above, share in rank_places(moments.count)
    )
    return Distribution(moments=moments, low=low, high=high, quantiles=quantiles)


def _interpolate(left: float, right: float, fraction: float) -> float:
    # Weighted, not left + fraction * (right - left): the difference may overflow.
    return left if left == right else (1.0 - fraction) * left + fraction * right


def require_fit(name: str, low: float, high: float) -> None:
    """Require numbers between ``low`` and ``high`` to be finite, in float32 too.

    Raises:
        WeightsError: ``non_finite_weights`` or ``weights_out_of_range``.
    """
    # A NaN anywhere makes minimum and maximum NaN; an infinity is one of the two.
    if not np.isfinite([low, high]).all():
        raise WeightsError(
            f"Weights must be finite; layer {name} holds NaN or infinity.",
            reason=Reason.NON_FINITE_WEIGHTS,
        )
    if max(-low, high) > LARGEST:
        raise WeightsError(
            f"Weights must be within the range of float32, {LARGEST:.2g}; layer {name} goes from "
            f"{low:.2g} to {high:.2g}.",
            reason=Reason.WEIGHTS_OUT_OF_RANGE,
        )
