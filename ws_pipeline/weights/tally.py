"""Compiled loops over numbers: one pass over a part, counts of narrow values. No I/O.

What numpy needs some forty passes for is one here: 1.0 ns per float32 number against 7
(docs/decisions/0013). A loop is compiled when it is first called for a dtype, in 0.1 to 0.5
CPU-seconds, and kept on disk where numba finds a directory that can be written: what
``NUMBA_CACHE_DIR`` names, ``__pycache__`` beside this file, or the user's cache. Where there is
none, every process compiles. Import and first call take 0.6 s even so, which is why this module is
imported where numbers are measured.

Sums run in LANES lanes of float64 in a fixed order and without fused multiply-adds: the same bits
on every machine. Arrays have to be contiguous, aligned and writable (:func:`prepare`), or numba
compiles once more for them. Not here: which brackets (``quantiles``), what is fit
(``distributions``).
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast, no_type_check

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

NUM_BRACKETS = 5
"""One for each quantile of s(W)."""

LANES = 16

_WORD = 64
"""Numbers per step, one bit each of a mask of members."""

_I32, _I64, _F64 = ir.IntType(32), ir.IntType(64), ir.DoubleType()

Function = TypeVar("Function", bound=Callable[..., Any])


def compile_loop(function: Function) -> Function:
    """Return a loop that is compiled when it is first called, outside of the interpreter's lock."""
    try:
        return cast(Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # numba's word for: no directory for its cache can be written
        return cast(Function, njit(nogil=True)(function))


def prepare(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``values`` as the loops want them; a copy only where they are not."""
    return np.require(values, requirements=["C", "A", "W"])


class Tally:
    """What passes over some numbers have found so far.

    Args:
        lows: Of the brackets, ascending and disjoint, in the numbers' dtype.
        highs: Of the brackets, included.
        shift: What is subtracted before squaring: a number near their mean.
    """

    def __init__(self, lows: npt.NDArray[Any], highs: npt.NDArray[Any], *, shift: float) -> None:
        dtype = lows.dtype
        # Nothing finite lies between infinity and infinity.
        self._edges = np.full(2 * NUM_BRACKETS, np.inf, dtype)
        self._edges[: 2 * len(lows)] = np.column_stack([lows, highs]).reshape(-1)
        # A bracket of one value holds nothing but that value, however often.
        self._kept = np.where(self._edges[::2] < self._edges[1::2], ~np.uint64(0), np.uint64(0))
        self._counts = np.zeros(2 * NUM_BRACKETS + 1, np.int64)
        self._ends = np.repeat(np.array([np.inf, -np.inf], dtype), LANES)
        self._members = np.empty(0, dtype)
        self._shift = shift

    def brackets(self) -> list[tuple[float, float, int, int]]:
        """Return (low, high, numbers below it, numbers below or in it) of each bracket."""
        edges, counts = self._edges.tolist(), self._counts[:-1].tolist()
        return list(zip(edges[::2], edges[1::2], counts[::2], counts[1::2], strict=True))

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest number; NaN if one of them was."""
        if self._counts[-1]:
            return np.nan, np.nan
        return float(self._ends[:LANES].min()), float(self._ends[LANES:].max())

    def drop_members(self) -> None:
        """From now on only count."""
        self._kept[:] = 0

    def add(self, part: npt.NDArray[Any]) -> tuple[float, float, npt.NDArray[Any]]:
        """Take in a part; its mean, its squared deviations, and what lies in wide brackets.

        The last is valid until the next part comes.
        """
        if self._members.size < part.size:
            self._members = np.empty(part.size, part.dtype)
        sums = np.zeros(2 * LANES)
        num_members = _tally(
            prepare(part), self._edges, self._kept, self._counts, self._ends, sums, self._shift,
            self._members,
        )  # fmt: skip
        total, squares = sums.reshape(2, LANES).sum(axis=1).tolist()
        mean = self._shift + total / part.size
        return mean, squares - total * total / part.size, self._members[:num_members]


def count_values(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> None:
    """Add to ``counts`` how often each 8- or 16-bit unsigned integer occurs."""
    _count(prepare(values), counts)


@compile_loop
@no_type_check
def _tally(part, edges, kept, counts, ends, sums, shift, members):  # noqa: PLR0917 - compiled
    """Count, sum and find ends; put members of brackets to the front of ``members``."""
    num_members = 0
    whole = part.size - part.size % _WORD
    for start in range(0, whole, _WORD):
        inside = _tally_word(part, start, edges, kept, counts, ends, sums, shift)
        while inside:
            members[num_members] = part[start + _lowest_bit(inside)]
            num_members += 1
            inside &= inside - np.uint64(1)
    for place in range(whole, part.size):
        number, lane = part[place], (place - whole) % LANES
        is_member = False
        for bracket in range(NUM_BRACKETS):
            below = number < edges[2 * bracket]
            through = number <= edges[2 * bracket + 1]
            counts[2 * bracket] += below
            counts[2 * bracket + 1] += through
            is_member |= (below != through) and kept[bracket] != 0
        if is_member:
            members[num_members] = number
            num_members += 1
        counts[-1] |= number != number  # noqa: PLR0124 - NaN is not itself
        deviation = np.float64(number) - shift
        sums[lane] += deviation
        sums[LANES + lane] += deviation * deviation
        ends[lane] = min(number, ends[lane])
        ends[LANES + lane] = max(number, ends[LANES + lane])
    return num_members


@compile_loop
@no_type_check
def _count(values, counts):
    for value in values:
        counts[value] += 1


@no_type_check
def _type_lowest_bit(context, mask):  # noqa: ARG001 - numba's signature
    def emit(context, builder, signature, arguments):  # noqa: ARG001
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), emit


@no_type_check
def _emit_tally_word(context, builder, signature, arguments):
    """Emit the step over _WORD numbers in vectors, and return which of them are members.

    LLVM makes of it what the machine has: four registers of AVX-512, eight of AVX2, and so on.
    """

    def point(place):
        array = make_array(signature.args[place])(context, builder, arguments[place])
        return array.data

    part, edges, kept, counts, ends, sums = (point(place) for place in (0, 2, 3, 4, 5, 6))
    kind = context.get_value_type(signature.args[0].dtype)
    numbers = _load(builder, builder.gep(part, [arguments[1]]), kind, _WORD)
    inside = _emit_counts(builder, numbers, kind, edges=edges, kept=kept, counts=counts)
    shift = _spread(builder, arguments[7], LANES)
    total, square = (_load(builder, _at(builder, sums, k), _F64, LANES) for k in (0, LANES))
    low, high = (_load(builder, _at(builder, ends, k), kind, LANES) for k in (0, LANES))
    for first in range(0, _WORD, LANES):
        some = _pick(builder, numbers, range(first, first + LANES))
        wide = some if kind == _F64 else builder.fpext(some, ir.VectorType(_F64, LANES))
        deviation = builder.fsub(wide, shift)
        total = builder.fadd(total, deviation)
        square = builder.fadd(square, builder.fmul(deviation, deviation))
        low = builder.select(builder.fcmp_ordered("<", some, low), some, low)
        high = builder.select(builder.fcmp_ordered(">", some, high), some, high)
    for vector, base, place in (
        (total, sums, 0),
        (square, sums, LANES),
        (low, ends, 0),
        (high, ends, LANES),
    ):
        _store(builder, vector, _at(builder, base, place))
    return inside


@no_type_check
def _emit_counts(builder, numbers, kind, *, edges, kept, counts):
    """Emit the comparisons with all edges."""
    ones = builder.module.declare_intrinsic("llvm.ctpop", [_I64])
    inside = ir.Constant(_I64, 0)
    for bracket in range(NUM_BRACKETS):
        masks = []
        for edge, sign in ((2 * bracket, "<"), (2 * bracket + 1, "<=")):
            bound = _spread(builder, builder.load(_at(builder, edges, edge), typ=kind), _WORD)
            mask = builder.bitcast(builder.fcmp_ordered(sign, numbers, bound), _I64)
            place = _at(builder, counts, edge)
            count = builder.load(place, typ=_I64)
            builder.store(builder.add(count, builder.call(ones, [mask])), place)
            masks.append(mask)
        # Brackets are disjoint: not below, but not above either, is in this one.
        member = builder.and_(
            builder.xor(*masks), builder.load(_at(builder, kept, bracket), typ=_I64)
        )
        inside = builder.or_(inside, member)
    no_number = builder.bitcast(builder.fcmp_unordered("uno", numbers, numbers), _I64)
    place = _at(builder, counts, 2 * NUM_BRACKETS)
    builder.store(builder.or_(builder.load(place, typ=_I64), no_number), place)
    return inside


@no_type_check
def _at(builder, pointer, place):
    return builder.gep(pointer, [ir.Constant(_I64, place)])


@no_type_check
def _load(builder, pointer, kind, count):
    vector = ir.VectorType(kind, count)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), typ=vector, align=4)


@no_type_check
def _store(builder, vector, pointer):
    builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=4)


@no_type_check
def _pick(builder, vector, places):
    chosen = ir.Constant(ir.VectorType(_I32, len(places)), list(places))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)


@no_type_check
def _spread(builder, number, count):
    """Return a vector of ``count`` times the same number."""
    empty = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(_I32, 0))
    return _pick(builder, first, [0] * count)


@no_type_check
def _type_tally_word(context, part, start, edges, kept, counts, ends, sums, shift):  # noqa: ARG001, PLR0917
    given = (part, types.intp, edges, kept, counts, ends, sums, types.float64)
    return types.uint64(*given), _emit_tally_word


_lowest_bit = intrinsic(_type_lowest_bit)
_tally_word = intrinsic(_type_tally_word)
