"""A layer's true weights as one float64 matrix: what statistics of weights look at. No I/O.

Not here: how a matrix is joined from tensors (``matrix``), where its numbers lie (``tokens``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerMatrix:
    """One tokenised layer.

    Attributes:
        name: The weight tensor.
        role: What it is.
        values: True weights, ``(rows, cols)`` float64: rows are outputs, columns inputs, the bias
            is the last column.
    """

    name: str
    role: str
    values: NDArray[np.float64]
