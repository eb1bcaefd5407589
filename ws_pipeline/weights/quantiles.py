"""Order statistics of many numbers, exact, in one pass and in bounded memory.

A small even sample says between which two numbers a rank almost surely lies; the pass counts what
is below the lower one and keeps the few numbers in between. The same pass takes the moments and
the ends along (``tally``). Where the sample has misled, one more pass with wider brackets follows,
and if that fails two that count bits. So the sample decides how long it takes and never what comes
out. No I/O of its own: ``values`` reads.

Source: Floyd and Rivest 1975, "Expected time bounds for selection", section 2; ours counts several
ranks at once and streams.
"""

from collections.abc import Iterable, Sequence
from math import floor, inf, isfinite, log2, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.moments import Moments
from ws_pipeline.weights.tally import NUM_BRACKETS, Tally
from ws_pipeline.weights.values import Values

MIN_BRACKETED = 2**13
"""Fewer numbers are sorted."""

SPREAD = 3.0
"""Half width of a bracket in standard deviations of a sampled rank. A narrow one keeps few numbers,
a wide one is seldom missed; from 2 to 3.5 the time is the same, and 3 misses one layer in 75."""
WIDE_SPREAD = 8.0
"""In the second pass: what that misses is not chance but a sample that is not like the whole."""

MAX_MEMBERS = 2**23
"""Numbers kept between brackets, 32 MiB. Only beyond 400 million numbers, or where a few values
repeat very often, are there more; then bits are counted."""

_HALF = 2**16


def select_ranks(values: Values, ranks: Iterable[int]) -> dict[int, float]:
    """Return {rank: the number that would stand there if the values were sorted}.

    Args:
        values: Finite float32 or float64 numbers.
        ranks: Each in ``[0, values.size)``.
    """
    ranks = sorted(set(ranks))
    if not ranks:
        return {}
    if values.size < MIN_BRACKETED:
        ordered = np.sort(np.concatenate([chunk.copy() for chunk in values.chunks()]))
        return {rank: float(ordered[rank]) + 0.0 for rank in ranks}
    return _pass_over(values, RankCounter(values, ranks))


class RankCounter:
    """Finds ranks, moments and ends during a pass that somebody else makes over the values.

    Attributes:
        moments: Of the numbers so far.
    """

    def __init__(self, values: Values, ranks: Sequence[int], *, spread: float = SPREAD) -> None:
        self._values = values
        self._ranks = ranks
        self._spread = spread
        sample = np.sort(values.sample(_sample_size(values.size)))
        lows, highs = _choose_brackets(sample, values.size, ranks, spread)
        middle = float(sample[sample.size // 2])
        # What is not finite is refused in the end; until then it must not spoil what is.
        self._tally = Tally(lows, highs, shift=middle if isfinite(middle) else 0.0)
        self._members: list[npt.NDArray[Any]] = []
        self._num_members = 0
        self.moments = Moments(count=0, mean=0.0, squares=0.0)

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest number so far; NaN if one of them was."""
        return self._tally.range

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """Take in a chunk of any size."""
        mean, squares, members = self._tally.add(chunk)
        self.moments = self.moments.merge(Moments(count=chunk.size, mean=mean, squares=squares))
        if members.size:
            self._members.append(members.copy())
            self._num_members += members.size
            if self._num_members > MAX_MEMBERS:
                self._tally.drop_members()

    def finish(self) -> dict[int, float]:
        """Return {rank: number}, after the last chunk."""
        found: dict[int, float] = {}
        is_kept = self._num_members <= min(MAX_MEMBERS, self._values.size // 2)
        members = np.sort(np.concatenate(self._members)) if is_kept and self._members else None
        start = 0
        for low, high, below, through in self._tally.brackets():
            inside = [rank for rank in self._ranks if below <= rank < through]
            if low == high:
                found |= dict.fromkeys(inside, low + 0.0)
            elif members is not None:
                found |= {rank: float(members[start + rank - below]) + 0.0 for rank in inside}
                start += through - below
        return found | self._find_missing([rank for rank in self._ranks if rank not in found])

    def _find_missing(self, ranks: Sequence[int]) -> dict[int, float]:
        if not ranks:
            return {}
        # Where half of all are members, a few values repeat, and no sample is of help.
        if self._spread >= WIDE_SPREAD or 2 * self._num_members > self._values.size:
            return count_ranks(self._values, ranks)
        return _pass_over(self._values, RankCounter(self._values, ranks, spread=WIDE_SPREAD))


def _pass_over(values: Values, counter: RankCounter) -> dict[int, float]:
    for chunk in values.chunks():
        counter.add(chunk)
    return counter.finish()


def count_ranks(values: Values, ranks: Sequence[int]) -> dict[int, float]:
    """Do what :func:`select_ranks` does by counting 16 bits of all numbers after another 16.

    Two passes for float32, four for float64, 2.5 times as long, and 6 MiB for any number of values
    however often they repeat.
    """
    # For each rank the leading bits found so far, and its place among the numbers that have them.
    leading = dict.fromkeys(ranks, 0)
    places = {rank: rank for rank in ranks}
    first = 8 * values.dtype.itemsize - 16
    for shift in range(first, -1, -16):
        counts = {bits: np.zeros(_HALF, np.int64) for bits in leading.values()}
        for chunk in values.chunks():
            ordered = _ordered_bits(chunk)
            for bits, count in counts.items():
                alike = ordered
                if shift < first:
                    alike = ordered[ordered >> (shift + 16) == bits]
                digits = (alike >> shift) & (_HALF - 1)
                np.add(count, np.bincount(digits.astype(np.int64), minlength=_HALF), out=count)
        for rank, place in places.items():
            ends = np.cumsum(counts[leading[rank]])
            digit = int(np.searchsorted(ends, place, side="right"))
            places[rank] = place - (int(ends[digit - 1]) if digit else 0)
            leading[rank] = leading[rank] << 16 | digit
    return {rank: _number_of(bits, values.dtype) + 0.0 for rank, bits in leading.items()}


def _sample_size(size: int) -> int:
    return int(2 ** round(1 + log2(size) * 2 / 3))


def _choose_brackets(
    sample: npt.NDArray[Any], size: int, ranks: Sequence[int], spread: float
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return (lows, highs) of disjoint, ascending brackets.

    They hold every rank of ``size`` numbers, unless the sample, which is sorted, errs.
    """
    places = []
    for rank in ranks:
        share = rank / max(1, size - 1)
        reach = spread * sqrt(share * (1 - share) * sample.size) + 1
        middle = share * (sample.size - 1)
        places.append((floor(middle - reach), floor(middle + reach) + 1))
    padded = np.concatenate([[-inf], sample, [inf]]).astype(sample.dtype)
    brackets: list[tuple[Any, Any]] = []
    for first, last in sorted(places):
        low, high = padded[np.clip([first + 1, last + 1], 0, sample.size + 1)]
        # One bracket for ranks whose brackets meet, as those of a quantile's two neighbours do.
        if brackets and low <= brackets[-1][1]:
            low, high = brackets[-1][0], max(high, brackets.pop()[1])
        brackets.append((low, high))
    while len(brackets) > NUM_BRACKETS:
        low, _ = brackets.pop(-2)
        brackets[-1] = (low, brackets[-1][1])
    lows, highs = np.array(brackets, sample.dtype).T
    return lows, highs


def _ordered_bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the numbers' bits, mapped so that they ascend with the number."""
    kind = np.dtype(f"u{values.itemsize}")
    bits, top = values.view(kind), kind.type(2 ** (8 * values.itemsize - 1))
    # Negative numbers: all bits flipped. Others: the sign bit alone.
    flips = np.negative(bits >> kind.type(8 * values.itemsize - 1)) | top
    ordered: npt.NDArray[Any] = bits ^ flips
    return ordered


def _number_of(ordered: int, dtype: np.dtype[Any]) -> float:
    """Undo :func:`_ordered_bits` for one number."""
    top = 2 ** (8 * dtype.itemsize - 1)
    bits = ordered ^ top if ordered >= top else ordered ^ (2 * top - 1)
    return float(np.array(bits, f"u{dtype.itemsize}").view(dtype))
