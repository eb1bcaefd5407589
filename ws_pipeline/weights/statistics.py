"""Moments and quantiles of a layer's weights and biases: the features s(W) and what normalises it.

Mean, standard deviation, minimum, maximum and the 1/25/50/75/99 % quantiles, exact and in one pass
over a layer of any size: float32 chunk by chunk with float64 accumulation, 8- and 16-bit types by
counting how often each of their few values occurs. Values must be finite. No I/O of its own:
``values`` reads. Source of the feature set: Unterthiner et al. 2020, arXiv 2002.11448, as used for
s(W) by SANE, arXiv 2406.09997, section 5.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.dtypes import widen
from ws_pipeline.weights.quantiles import RankCounter
from ws_pipeline.weights.values import CHUNK_BYTES, ArrayValues, Values

QUANTILES = (0.01, 0.25, 0.50, 0.75, 0.99)

MAX_SORTED = 2**13
"""Layers up to this many elements are sorted, several models at once."""

MIN_COUNTED = 2**18
"""Narrow layers of fewer elements are widened: going through a table of 65,536 costs more."""

DOT_LENGTH = 2**13
"""Elements per dot product. BLAS gives longer ones to several threads, and then the last bits of
a sum hang on how many there are."""

MAX_CANCELLATION = 1e3
"""Mean square over variance of a chunk above which its mean is subtracted before squaring."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerStatistics:
    """Statistics of one layer: ``w_*`` of its weights, ``b_*`` of its biases (None without).

    Attributes:
        mean: Of the whole matrix [W|b]; what normalisation subtracts.
        std: Of the whole matrix; what normalisation divides by.
    """

    w_mean: float
    w_std: float
    w_min: float
    w_max: float
    w_q01: float
    w_q25: float
    w_q50: float
    w_q75: float
    w_q99: float
    b_mean: float | None
    b_std: float | None
    b_q01: float | None
    b_q25: float | None
    b_q50: float | None
    b_q75: float | None
    b_q99: float | None
    mean: float
    std: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the fields as a plain dict, in the order of the layer table's columns."""
        # Ten times as fast as asdict, which copies every number deeply.
        return {name: getattr(self, name) for name in STATISTICS_FIELDS}


STATISTICS_FIELDS = tuple(LayerStatistics.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations; two of them merge into that of the union."""

    count: int
    mean: float
    squares: float

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return sqrt(max(0.0, self.squares / self.count)) if self.count else 0.0

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both samples together (Chan et al. 1983)."""
        count = self.count + other.count
        if not count:
            return self
        difference = other.mean - self.mean
        mean = self.mean + difference * other.count / count
        squares = self.squares + other.squares
        squares += difference * difference * self.count * other.count / count
        return Moments(count=count, mean=mean, squares=squares)


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """What is known of one set of numbers; ``quantiles`` at :data:`QUANTILES`."""

    moments: Moments
    low: float
    high: float
    quantiles: tuple[float, ...]


def measure_layer(
    name: str, weights: Values | npt.NDArray[Any], biases: Values | npt.NDArray[Any] | None
) -> LayerStatistics:
    """Measure a layer from its weight and bias values, in any shape and floating dtype.

    Raises:
        WeightsError: ``non_finite_weights`` if any value is NaN or infinite.
    """
    measured = measure_values(name, weights)
    return combine(measured, None if biases is None else measure_values(name, biases))


def combine(weights: Distribution, biases: Distribution | None) -> LayerStatistics:
    """Return a layer's statistics from what is known of its weights and of its biases."""
    total = weights.moments if biases is None else weights.moments.merge(biases.moments)
    q01, q25, q50, q75, q99 = weights.quantiles
    b01, b25, b50, b75, b99 = biases.quantiles if biases else (None,) * len(QUANTILES)
    return LayerStatistics(
        w_mean=weights.moments.mean,
        w_std=weights.moments.std,
        w_min=weights.low,
        w_max=weights.high,
        w_q01=q01,
        w_q25=q25,
        w_q50=q50,
        w_q75=q75,
        w_q99=q99,
        b_mean=biases.moments.mean if biases else None,
        b_std=biases.moments.std if biases else None,
        b_q01=b01,
        b_q25=b25,
        b_q50=b50,
        b_q75=b75,
        b_q99=b99,
        mean=total.mean,
        std=total.std,
    )


def measure_values(name: str, values: Values | npt.NDArray[Any]) -> Distribution:
    """Measure one tensor's numbers; WeightsError with the layer's ``name`` if one is not finite."""
    if isinstance(values, np.ndarray):
        values = ArrayValues(values)
    if values.dtype.itemsize <= 2 and values.size >= MIN_COUNTED:
        return _measure_narrow(name, values)
    if values.dtype == np.float32 and values.size > MAX_SORTED:
        return _measure_stream(name, values)
    # float64, and what is small enough to be widened whole.
    wide = widen(np.concatenate([chunk.copy() for chunk in values.chunks()]))
    if wide.dtype == np.float32 and values.size > MAX_SORTED:
        return _measure_stream(name, ArrayValues(wide))
    row = measure_rows(wide.reshape(1, -1))
    moments = Moments(count=row.count, mean=float(row.means[0]), squares=float(row.squares[0]))
    low, high = float(row.lows[0]), float(row.highs[0])
    _require_finite(name, moments, low, high)
    quantiles = tuple(float(number) for number in row.quantiles[0])
    return Distribution(moments=moments, low=low, high=high, quantiles=quantiles)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowStatistics:
    """What is known of each row of numbers: arrays ``(num_rows,)``, quantiles ``(num_rows, 5)``."""

    count: int
    means: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    lows: npt.NDArray[np.float64]
    highs: npt.NDArray[np.float64]
    quantiles: npt.NDArray[np.float64]


def measure_rows(rows: npt.NDArray[Any]) -> RowStatistics:
    """Measure each row of float32 or float64 numbers, ``(num_rows, size)``, on its own.

    Whether one row comes or thousands at once, each gets the same statistics to the bit. What is
    not finite shows in them.
    """
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float64)
        size = wide.shape[1]
        means = wide.sum(axis=1) / size
        wide -= means[:, None]
        squares = _square_sums(wide)
        # The second term removes what rounding left in the mean (Chan et al., corrected).
        squares -= wide.sum(axis=1) ** 2 / size
        # NaN sorts last.
        ordered = np.sort(rows, axis=1)
        below, above, shares = (np.array(part) for part in zip(*rank_places(size), strict=True))
        left = ordered[:, below].astype(np.float64) + 0.0
        right = ordered[:, above].astype(np.float64) + 0.0
        between = (1.0 - shares) * left + shares * right
    return RowStatistics(
        count=size,
        means=means,
        squares=squares,
        lows=ordered[:, 0].astype(np.float64),
        highs=ordered[:, -1].astype(np.float64),
        quantiles=np.where(left == right, left, between),
    )


def combine_rows(weights: RowStatistics, biases: RowStatistics | None) -> npt.NDArray[np.float64]:
    """Return one layer's statistics in many models, ``(num_models, len(STATISTICS_FIELDS))``.

    NaN where a layer has no bias. The numbers are those of :func:`measure_layer` to the bit.
    """
    missing = np.full((len(weights.means), 7), np.nan)
    means, squares, count = weights.means, weights.squares, weights.count
    b_columns = missing
    if biases is not None:
        b_columns = np.column_stack(
            [biases.means, _row_stds(biases.squares, biases.count), biases.quantiles]
        )
        total = count + biases.count
        difference = biases.means - means
        means = means + difference * biases.count / total
        squares = squares + biases.squares
        squares += difference * difference * count * biases.count / total
        count = total
    return np.column_stack(
        [
            weights.means,
            _row_stds(weights.squares, weights.count),
            weights.lows,
            weights.highs,
            weights.quantiles,
            b_columns,
            means,
            _row_stds(squares, count),
        ]
    )


def _row_stds(squares: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    stds: npt.NDArray[np.float64] = np.sqrt(np.maximum(0.0, squares / count))
    return stds


def rank_places(size: int) -> list[tuple[int, int, float]]:
    """Return (rank below, rank above, share of the latter) of each of :data:`QUANTILES`."""
    last = size - 1
    places = [quantile * last for quantile in QUANTILES]
    return [(int(place), min(int(place) + 1, last), place - int(place)) for place in places]


def _measure_stream(name: str, values: Values) -> Distribution:
    """Measure float32 numbers chunk by chunk."""
    ranks = sorted(
        {rank for below, above, _ in rank_places(values.size) for rank in (below, above)}
    )
    counter = RankCounter(values, ranks)
    moments = Moments(count=0, mean=0.0, squares=0.0)
    low, high = np.inf, -np.inf
    scratch = np.empty(CHUNK_BYTES // values.dtype.itemsize)
    with np.errstate(all="ignore"):
        for chunk in values.chunks():
            # numpy's minimum keeps a NaN, Python's may lose it.
            low, high = np.minimum(low, chunk.min()), np.maximum(high, chunk.max())
            moments = moments.merge(measure_moments(chunk, scratch))
            counter.add(chunk)
    _require_finite(name, moments, float(low), float(high))
    return _describe(name, moments, float(low), float(high), counter.finish())


def _measure_narrow(name: str, values: Values) -> Distribution:
    """Measure 8- or 16-bit numbers by counting each of the few that the type has."""
    bits = np.dtype(f"u{values.dtype.itemsize}")
    table, order = _value_table(values.dtype)
    counts = np.zeros(table.size, np.int64)
    for chunk in values.chunks():
        counts += np.bincount(chunk.view(bits), minlength=table.size)
    counts = counts[order]
    seen = np.flatnonzero(counts)
    numbers, counts = table[order][seen], counts[seen]
    with np.errstate(all="ignore"):
        mean = float((numbers * counts).sum()) / values.size
        squares = float((np.square(numbers - mean) * counts).sum())
    moments = Moments(count=values.size, mean=mean, squares=squares)
    ends = np.cumsum(counts)
    ranks = {rank for below, above, _ in rank_places(values.size) for rank in (below, above)}
    found = {rank: float(numbers[np.searchsorted(ends, rank, side="right")]) for rank in ranks}
    # NaN sorts last.
    return _describe(name, moments, float(numbers[0]), float(numbers[-1]), found)


@lru_cache(maxsize=8)
def _value_table(dtype: np.dtype[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return every value of an 8- or 16-bit type by its bits, and what puts them in order."""
    every = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):
        table = every.astype(np.float64) + 0.0
    return table, np.argsort(table, kind="stable")


def measure_moments(
    values: npt.NDArray[Any], scratch: npt.NDArray[np.float64] | None = None
) -> Moments:
    """Return the moments of one chunk of numbers, accumulated in float64.

    NaN and infinities come out as a non-finite mean or sum.

    Args:
        values: Flat numbers.
        scratch: Where to widen them: fresh memory costs more than the arithmetic.
    """
    wide = np.empty(values.size) if scratch is None else scratch[: values.size]
    np.copyto(wide, values)
    mean = float(wide.sum()) / wide.size
    total = float(_square_sums(wide[None])[0])
    squares = total - wide.size * mean * mean
    if not total <= MAX_CANCELLATION * squares:
        wide -= mean
        # The second term removes what rounding left in the mean (Chan et al., corrected).
        squares = float(_square_sums(wide[None])[0]) - float(wide.sum()) ** 2 / wide.size
    return Moments(count=wide.size, mean=mean, squares=squares)


def _square_sums(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum of squares of each row, ``(num_rows,)``."""
    num_rows, size = rows.shape
    whole = size - size % DOT_LENGTH
    blocks = rows[:, :whole].reshape(num_rows, -1, DOT_LENGTH)
    rest = rows[:, whole:]
    sums: npt.NDArray[np.float64] = np.vecdot(blocks, blocks).sum(axis=1) + np.vecdot(rest, rest)
    return sums


def _describe(
    name: str, moments: Moments, low: float, high: float, found: dict[int, float]
) -> Distribution:
    _require_finite(name, moments, low, high)
    quantiles = tuple(
        _interpolate(found[below], found[above], share)
        for below, above, share in rank_places(moments.count)
    )
    return Distribution(moments=moments, low=low, high=high, quantiles=quantiles)


def _interpolate(left: float, right: float, fraction: float) -> float:
    # Weighted, not left + fraction * (right - left): the difference may overflow.
    return left if left == right else (1.0 - fraction) * left + fraction * right


def _require_finite(name: str, moments: Moments, low: float, high: float) -> None:
    # A NaN anywhere makes minimum and maximum NaN; an infinity is one of the two. Finite float64
    # values may still overflow their own sum of squares.
    if not np.isfinite([low, high, moments.mean, moments.squares]).all():
        raise WeightsError(
            f"Weights must be finite; layer {name} holds NaN or infinity, or values so large that "
            "their squares overflow.",
            reason=Reason.NON_FINITE_WEIGHTS,
        )
