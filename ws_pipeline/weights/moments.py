"""Mean and squared deviations of numbers in float64, mergeable chunk by chunk. No I/O.

Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", for the merge and
for the correction of the mean's rounding.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

DOT_LENGTH = 2**13
"""Elements per dot product. BLAS gives longer ones to several threads, and then the last bits of
a sum hang on how many there are."""

MAX_CANCELLATION = 1e3
"""Mean square over variance of a chunk above which its mean is subtracted before squaring."""


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
    total = float(square_sums(wide[None])[0])
    squares = total - wide.size * mean * mean
    if not total <= MAX_CANCELLATION * squares:
        wide -= mean
        # The second term removes what rounding left in the mean (Chan et al., corrected).
        squares = float(square_sums(wide[None])[0]) - float(wide.sum()) ** 2 / wide.size
    return Moments(count=wide.size, mean=mean, squares=squares)


def square_sums(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum of squares of each row, ``(num_rows,)``."""
    num_rows, size = rows.shape
    whole = size - size % DOT_LENGTH
    blocks = rows[:, :whole].reshape(num_rows, -1, DOT_LENGTH)
    rest = rows[:, whole:]
    sums: npt.NDArray[np.float64] = np.vecdot(blocks, blocks).sum(axis=1) + np.vecdot(rest, rest)
    return sums
