"""Which windows are drawn: a function of the seed and the window's number alone. No I/O.

Windows are numbered through the whole training: window i of step s has number ``s * batch_size +
i``, whatever process reads it. Number n is the n-th block of a Philox stream keyed by the seed, so
any window can be drawn without those before it, and the global batch of a step does not depend on
how many processes share it.

A draw picks a model by its weight, then a place in it. A model of n tokens, at most a window long,
is taken whole. Of a longer one, the window's first token is uniform over -(window - 1) .. n - 1 and
the window is cut off at the model's ends: every token lies in `window` of the n + window - 1
equally likely windows, so each is seen with probability window / (n + window - 1), the first and
the last like all others. (Starts within [0, n - window], as the peers draw them, show the first
token in one window of n - window + 1.) Price: a window holds n / (n + window - 1) of its length on
average. METHOD 4 leaves the choice open.

Source of the generator: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.batch_plan import WindowSpans

_WORDS = 4
"""64-bit numbers in a Philox block; a draw uses two."""


class WindowDraws:
    """Draws windows by number.

    Args:
        weights: How likely each model is, up to a factor; ``(models,)``. One without tokens is
            never drawn.
        num_tokens: Tokens of each model; ``(models,)``.
        window_size: Tokens per window.
        seed: Of the draws.

    Raises:
        ConfigError: If the weights are negative, not finite or leave nothing to draw.
    """

    def __init__(
        self,
        weights: npt.NDArray[np.float64],
        num_tokens: npt.NDArray[np.int64],
        *,
        window_size: int,
        seed: int,
    ) -> None:
        drawable = np.where(num_tokens > 0, weights, 0.0)
        if not np.isfinite(weights).all() or (weights < 0).any() or not drawable.sum() > 0:
            raise ConfigError(
                "A data set needs models with weights that are not negative and not all zero; "
                f"it was given {len(weights)} models."
            )
        self.probabilities: npt.NDArray[np.float64] = drawable / drawable.sum()
        """Of each model."""
        self._cumulative = np.cumsum(drawable) / drawable.sum()
        self._last = int(np.flatnonzero(drawable)[-1])
        self._num_tokens = num_tokens
        self._window_size = window_size
        self._seed = seed

    def draw(self, first: int, count: int) -> WindowSpans:
        """Return the windows ``first`` to ``first + count - 1``."""
        stream = np.random.Philox(key=self._seed, counter=first)
        words = stream.random_raw(count * _WORDS).reshape(count, _WORDS)[:, :2]
        uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        models = np.searchsorted(self._cumulative, uniform[:, 0], side="right")
        models = np.minimum(models, self._last)  # the sum may round to less than one
        starts, stops = place_windows(self._num_tokens[models], uniform[:, 1], self._window_size)
        return WindowSpans(models=models, starts=starts, stops=stops)


def place_windows(
    num_tokens: npt.NDArray[np.int64], uniform: npt.NDArray[np.float64], window_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (start, stop) of a window of each model; every token of a model is equally likely.

    Args:
        num_tokens: Of each model; ``(windows,)``.
        uniform: Independent numbers in [0, 1); ``(windows,)``.
        window_size: Tokens per window.
    """
    places = num_tokens + window_size - 1
    starts = (uniform * places).astype(np.int64) - (window_size - 1)
    stops = np.minimum(starts + window_size, num_tokens)
    whole = num_tokens <= window_size
    starts = np.where(whole, 0, np.maximum(starts, 0))
    return starts, np.where(whole, num_tokens, stops)
