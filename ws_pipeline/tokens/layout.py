"""How layers are cut into tokens: dense or sliced, and all the arithmetic that follows. No I/O.

A layer's matrix [W|b] of shape (rows, cols) becomes tokens of ``token_size`` numbers. *Dense*: the
whole matrix is one row-major run, only its last token is padded. *Sliced* (SANE, arXiv 2406.09997,
section 3): every row is cut on its own, the last token of each row is padded. Positions, masks and
the place of a token's weights are computed from rows and cols; nothing of it is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ws_pipeline.arrays import NUM_POSITION_COORDINATES
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


class TokenIndex:
    """Where each token of one model comes from: arrays over its layers, arithmetic over its tokens.

    Args:
        layout: How layers are cut.
        shapes: (rows, cols) of each tokenised layer in order, bias columns included.
    """

    def __init__(self, layout: TokenLayout, shapes: Sequence[tuple[int, int]]) -> None:
        self.layout = layout
        runs = [_runs(layout, rows, cols) for rows, cols in shapes]
        self._run_lengths = np.array([length for _, length in runs], dtype=np.int64)
        self._tokens_per_run = np.maximum(1, -(-self._run_lengths // layout.token_size))
        counts = [num_layer_tokens(layout, rows, cols) for rows, cols in shapes]
        self.first_tokens: npt.NDArray[np.int64] = np.concatenate(
            [np.zeros(1, dtype=np.int64), np.cumsum(np.array(counts, dtype=np.int64))]
        )
        """First token of each layer, and one past the last token of all; ``(num_layers + 1,)``."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the model."""
        return int(self.first_tokens[-1])

    def layer_of(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Return the layer of the tokens [start, stop); ``(window,)``."""
        tokens = np.arange(start, stop, dtype=np.int64)
        # The last layer that begins at or before the token; layers without tokens are stepped over.
        found: npt.NDArray[np.intp] = np.searchsorted(self.first_tokens, tokens, side="right") - 1
        return found.astype(np.int32)

    def positions(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return (place in the model, layer, place in the layer) of each token; ``(window, 3)``."""
        positions = np.empty((stop - start, NUM_POSITION_COORDINATES), dtype=np.int64)
        layer = self.layer_of(start, stop)
        positions[:, 0] = np.arange(start, stop)
        positions[:, 1] = layer
        positions[:, 2] = positions[:, 0] - self.first_tokens[layer]
        return positions

    def lengths(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return how many real weights each token holds, 1 to token_size; ``(window,)``."""
        layer, chunk, _ = self._locate(start, stop)
        remaining = self._run_lengths[layer] - chunk * self.layout.token_size
        lengths: npt.NDArray[np.int64] = np.minimum(remaining, self.layout.token_size)
        return lengths

    def mask(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Return where real weights are; ``(window, token_size)``."""
        lengths = self.lengths(start, stop)
        mask: npt.NDArray[np.bool_] = np.arange(self.layout.token_size) < lengths[:, None]
        return mask

    def offsets(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return where each token's first weight lies in its layer's values; ``(window,)``."""
        layer, chunk, run = self._locate(start, stop)
        offsets: npt.NDArray[np.int64] = (
            run * self._run_lengths[layer] + chunk * self.layout.token_size
        )
        return offsets

    def _locate(
        self, start: int, stop: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (layer, place in the run, run of the layer) of each token."""
        layer = self.layer_of(start, stop)
        place = np.arange(start, stop, dtype=np.int64) - self.first_tokens[layer]
        run, chunk = np.divmod(place, self._tokens_per_run[layer])
        return layer, chunk, run
