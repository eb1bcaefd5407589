"""Mean and squared deviations of numbers in float64, mergeable chunk by chunk. No I/O.

Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", for the merge.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

DOT_LENGTH = 2**13
"""Elements per dot product. BLAS gives longer ones to several threads, and then the last bits of
a sum hang on how many there are."""


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


def square_sums(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum of squares of each row, ``(num_rows,)``."""
    num_rows, size = rows.shape
    whole = size - size % DOT_LENGTH
    blocks = rows[:, :whole].reshape(num_rows, -1, DOT_LENGTH)
    rest = rows[:, whole:]
    sums: npt.NDArray[np.float64] = np.vecdot(blocks, blocks).sum(axis=1) + np.vecdot(rest, rest)
    return sums
