"""Order statistics of many numbers, exact, in one pass and in bounded memory.

A small even sample says between which two numbers a rank almost surely lies; the pass counts what
is below the lower one and keeps the few numbers in between. Comparing and counting run at ten times
the speed of sorting or of a histogram. Where the sample has misled, one more pass with wider
brackets follows, and if that fails two that count bits. So the sample decides how long it takes and
never what comes out. No I/O of its own: ``values`` reads.

Source: Floyd and Rivest 1975, "Expected time bounds for selection", section 2; ours counts several
ranks at once and streams.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, inf, log2, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.values import ArrayValues, Values

MIN_BRACKETED = 2**13
"""Fewer numbers are sorted."""

SPREAD = 2.0
"""Half width of a bracket in standard deviations of a sampled rank. A narrow one keeps few numbers,
a wide one is seldom missed: 2 is cheapest, and misses in one layer of five."""
WIDE_SPREAD = 8.0
"""In the second pass: what that misses is not chance but a sample that is not like the whole."""

MAX_MEMBERS = 2**23
"""Numbers kept between brackets, 32 MiB. Only beyond 400 million numbers, or where a few values
repeat very often, are there more; then bits are counted."""

_HALF = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bracket:
    """The numbers from ``low`` to ``high``, both included, in the values' own dtype."""

    low: Any
    high: Any


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
    """Finds ranks during a pass that somebody else makes over the values."""

    def __init__(self, values: Values, ranks: Sequence[int], *, spread: float = SPREAD) -> None:
        self._values = values
        self._ranks = ranks
        self._spread = spread
        self._brackets = _choose_brackets(values, ranks, spread)
        self._num_below = [0] * len(self._brackets)
        self._num_through = [0] * len(self._brackets)
        self._members: list[npt.NDArray[Any]] = []
        self._num_members = 0
        self._flags, self._inside = np.empty((2, 0), np.bool_)

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """Count a chunk, and keep what lies in a bracket."""
        if self._flags.size < chunk.size:
            self._flags, self._inside = np.empty((2, chunk.size), np.bool_)
        flags, inside = self._flags[: chunk.size], self._inside[: chunk.size]
        inside[:] = False
        for index, bracket in enumerate(self._brackets):
            np.less(chunk, bracket.low, out=flags)
            self._num_below[index] += int(np.count_nonzero(flags))
            if bracket.low == bracket.high:
                np.less_equal(chunk, bracket.high, out=flags)
                self._num_through[index] += int(np.count_nonzero(flags))
            else:
                # Brackets are disjoint: below the one, but not above it, is in it alone.
                np.bitwise_xor(inside, flags, out=inside)
                np.less_equal(chunk, bracket.high, out=flags)
                np.bitwise_xor(inside, flags, out=inside)
        if self._num_members <= MAX_MEMBERS:
            self._members.append(np.compress(inside, chunk))
            self._num_members += self._members[-1].size

    def finish(self) -> dict[int, float]:
        """Return {rank: number}, after the last chunk."""
        found: dict[int, float] = {}
        is_kept = self._num_members <= min(MAX_MEMBERS, self._values.size // 2)
        members = np.concatenate(self._members) if is_kept else np.empty(0, self._values.dtype)
        for index, bracket in enumerate(self._brackets):
            below = self._num_below[index]
            if bracket.low == bracket.high:
                through = self._num_through[index]
                found |= {r: float(bracket.low) + 0.0 for r in self._ranks if below <= r < through}
                continue
            inside = members[(members >= bracket.low) & (members <= bracket.high)]
            places = [rank - below for rank in self._ranks if below <= rank < below + inside.size]
            if places:
                inside.partition(places)
                found |= {below + place: float(inside[place]) + 0.0 for place in places}
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


def _choose_brackets(values: Values, ranks: Sequence[int], spread: float) -> list[_Bracket]:
    """Return disjoint brackets in ascending order that hold every rank, unless the sample errs."""
    count = 2 ** round(1 + log2(values.size) * 2 / 3)
    sample = values.sample(count)
    number = values.dtype.type
    places = []
    for rank in ranks:
        share = rank / max(1, values.size - 1)
        reach = spread * sqrt(share * (1 - share) * sample.size) + 1
        middle = share * (sample.size - 1)
        places.append((floor(middle - reach), floor(middle + reach) + 1))
    # One bracket for ranks whose places overlap, as those of a quantile's two neighbours do.
    merged: list[tuple[int, int]] = []
    for low, high in sorted(places):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    last = sample.size - 1
    needed = {place for pair in merged for place in pair if 0 <= place <= last}
    ordered = select_ranks(ArrayValues(sample), needed)
    brackets: list[_Bracket] = []
    for low, high in merged:
        bracket = _Bracket(low=number(ordered.get(low, -inf)), high=number(ordered.get(high, inf)))
        if brackets and bracket.low <= brackets[-1].high:
            bracket = _Bracket(low=brackets.pop().low, high=bracket.high)
        brackets.append(bracket)
    return brackets


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
