"""Mean and squared deviations of numbers in float64, mergeable chunk by chunk. No I/O.

Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", for the merge and
for the correction of the mean's rounding.
"""

from dataclasses import dataclass
from math import sqrt


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
