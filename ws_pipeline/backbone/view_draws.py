"""Random numbers of a step's views: a function of the seed and of each window's number. No I/O.

Windows are numbered as ``tokens.draws`` numbers them: window i of step s has number
``s * batch_size + i``, whatever process holds it. Number n is the n-th block of a Philox stream
keyed by the seed. Four words of it are the window's: three numbers that decide for the whole
window, and the seed of the device's own generator, which draws what is as large as its tokens.
Measured on a Zen 4 core: 32 windows of 64 x 64 weights take 0.69 ms where one draw for all of them
takes 0.55 ms; 32 of 512 x 230 take 17.0 and 16.1 ms.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_WORDS = 4
"""64-bit numbers in a Philox block."""

_STREAM = 1
"""Second half of the key: the windows themselves are drawn from stream 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewDraws:
    """The random numbers of some windows; take them with :func:`draw_views`.

    Attributes:
        words: uint64 ``(windows, 4)``.
    """

    words: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        """Return how many windows they are for."""
        return len(self.words)

    def uniform(self, device: torch.device) -> Tensor:
        """Return three numbers in [0, 1) for each window, ``(windows, 3)``."""
        values = (self.words[:, 1:] >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return torch.from_numpy(values).to(device)

    def normal(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Return standard normal numbers, ``(windows, *shape)``."""
        return self._fill(torch.empty((len(self), *shape), device=device), 0, Tensor.normal_)

    def token_uniform(self, window_size: int, device: torch.device) -> Tensor:
        """Return a number in [0, 1) for each token, ``(windows, window_size)``."""
        return self._fill(torch.empty((len(self), window_size), device=device), 1, Tensor.uniform_)

    def _fill(self, out: Tensor, half: int, draw: Callable[..., Tensor]) -> Tensor:
        generator = torch.Generator(out.device)
        for row, seed in zip(out, self._seeds(half), strict=True):
            draw(row, generator=generator.manual_seed(seed))
        return out

    def _seeds(self, half: int) -> Iterator[int]:
        """Yield 32 bits of each window: torch's CPU generator ignores the upper half of a seed."""
        yield from self.words[:, 0].copy().view(np.uint32)[half::2].tolist()


def draw_views(seed: int, first: int, count: int) -> ViewDraws:
    """Return the numbers of the windows ``first`` to ``first + count - 1``."""
    key = np.array([seed, _STREAM], dtype=np.uint64)
    stream = np.random.Philox(key=key, counter=first)
    return ViewDraws(words=stream.random_raw(count * _WORDS).reshape(count, _WORDS))
