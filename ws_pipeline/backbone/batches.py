"""Batches of windows on their way to the device. No I/O of its own; the data set does that.

What it is: the protocol that ``tokens.windows`` keeps, one batch read ahead, numpy to torch. What
it is not: sampling (``tokens.windows``).
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from ws_pipeline.backbone.loss import Windows

Batch = Mapping[str, npt.NDArray[Any]]
"""Arrays by name: tokens, mask, positions, scale; see ``tokens.windows``."""


@runtime_checkable
class Batches(Protocol):
    """Batches by step: the same step gives the same batch, in this process or another."""

    def __len__(self) -> int:
        """Return the number of steps."""

    def __getitem__(self, step: int) -> Batch:
        """Return this process's share of a step's batch."""


def iterate_batches(batches: Batches, start: int, stop: int) -> Iterator[Batch]:
    """Yield the batches of steps ``[start, stop)``, reading one ahead in a thread.

    The position in the data is the step alone, so a resumed run begins where the old one ended.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
        ahead = reader.submit(batches.__getitem__, start) if start < stop else None
        for step in range(start, stop):
            assert ahead is not None  # noqa: S101 - the range is not empty here
            batch = ahead.result()
            ahead = reader.submit(batches.__getitem__, step + 1) if step + 1 < stop else None
            yield batch


def to_windows(batch: Batch, device: torch.device) -> Windows:
    """Move one batch to the device; see :class:`Windows` for the axes."""
    names = Windows._fields
    tensors = (torch.from_numpy(np.ascontiguousarray(batch[name])) for name in names)
    return Windows(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def num_real_tokens(batch: Batch) -> int:
    """Count tokens that hold at least one weight."""
    return int(batch["mask"].any(axis=-1).sum())
