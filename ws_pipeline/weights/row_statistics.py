"""Statistics of many small sets of numbers at once, one per row. No I/O.

What a layer of a few thousand numbers costs is calls, not arithmetic, so the same layer of some
hundred models is measured in the calls of one, with the same result to the bit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.moments import square_sums

QUANTILES = (0.01, 0.25, 0.50, 0.75, 0.99)


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
        squares = square_sums(wide)
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

    NaN where a layer has no bias. The numbers are those of ``statistics.measure_layer`` to the bit.
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
