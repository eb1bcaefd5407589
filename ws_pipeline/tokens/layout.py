"""How layers are cut into tokens: dense or sliced, and all the arithmetic that follows. No I/O.

A layer's matrix [W|b] of shape (rows, cols) becomes tokens of ``token_size`` numbers. *Dense*: the
whole matrix is one row-major run, only its last token is padded. *Sliced* (SANE, arXiv 2406.09997,
section 3): every row is cut on its own, the last token of each row is padded. Either way, token
order is value order. Not here: the arithmetic over whole models (``layer_table``).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import ConfigError

MAX_TOKEN_SIZE = 65_536
"""Far above the 230 to 289 in use; a bound so that a typo cannot ask for gigabytes per window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLayout:
    """Part of a recipe: the kind of cut and the numbers per token."""

    kind: Literal["dense", "sliced"] = "dense"
    token_size: int = 64

    def __post_init__(self) -> None:
        if self.kind not in {"dense", "sliced"}:
            raise ConfigError(f"TokenLayout.kind must be dense or sliced, it is {self.kind!r}.")
        if not 1 <= self.token_size <= MAX_TOKEN_SIZE:
            raise ConfigError(
                f"TokenLayout.token_size must be within [1, {MAX_TOKEN_SIZE}], "
                f"it is {self.token_size}."
            )


def num_layer_tokens(layout: TokenLayout, rows: int, cols: int) -> int:
    """Return how many tokens a layer of shape (rows, cols), bias column included, makes."""
    num_runs, run_length = _runs(layout, rows, cols)
    return num_runs * -(-run_length // layout.token_size)


def split_tokens(
    layout: TokenLayout, values: npt.NDArray[Any], rows: int, cols: int
) -> npt.NDArray[Any]:
    """Cut one layer's flat values into tokens ``(num_tokens, token_size)``, zero where padded."""
    num_runs, run_length = _runs(layout, rows, cols)
    tokens_per_run = -(-run_length // layout.token_size)
    padded = np.zeros((num_runs, tokens_per_run * layout.token_size), dtype=values.dtype)
    padded[:, :run_length] = values.reshape(num_runs, run_length)
    return padded.reshape(num_runs * tokens_per_run, layout.token_size)


def join_tokens(
    layout: TokenLayout, tokens: npt.NDArray[Any], rows: int, cols: int
) -> npt.NDArray[Any]:
    """Undo :func:`split_tokens`: the layer's ``rows * cols`` values; padding is dropped."""
    num_runs, run_length = _runs(layout, rows, cols)
    if not run_length:
        return np.zeros(0, dtype=tokens.dtype)
    return np.ascontiguousarray(tokens.reshape(num_runs, -1)[:, :run_length]).reshape(-1)


def _runs(layout: TokenLayout, rows: int, cols: int) -> tuple[int, int]:
    """Return (number, length) of the runs of values that are cut one by one."""
    return (rows, cols) if layout.kind == "sliced" else (1, rows * cols)
