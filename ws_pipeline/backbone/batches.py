"""Batches of windows on their way to the device. No I/O of its own; the data set does that.

What it is: the protocol that ``tokens.windows`` keeps, and one batch read ahead into memory that is
used again. What it is not: sampling (``tokens.windows``), mask and positions (``expansion``).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from ws_pipeline.backbone.expansion import to_windows
from ws_pipeline.tokens.window_batch import WindowBatch as Batch

__all__ = ["Batch", "Batches", "iterate_batches", "num_real_tokens", "to_windows"]


@runtime_checkable
class Batches(Protocol):
    """Batches by step: the same step gives the same batch, in this process or another."""

    def __len__(self) -> int:
        """Return the number of steps."""

    @property
    def max_batch_bytes(self) -> int:
        """What no batch exceeds."""

    def read(self, step: int, out: npt.NDArray[np.uint8] | None = None) -> Batch:
        """Return this process's share of a step's batch, in ``out`` if that is long enough."""


def iterate_batches(
    batches: Batches, start: int, stop: int, *, device: torch.device | None = None
) -> Iterator[Batch]:
    """Yield the batches of steps ``[start, stop)``, reading one ahead in a thread.

    The position in the data is the step alone, so a resumed run begins where the old one ended.
    Two buffers take turns: a batch is valid until the next one is asked for, and what was sent to
    the device until then is waited for before its buffer is written to again.

    Args:
        batches: By step.
        start: First step.
        stop: One past the last.
        device: Where batches go; for a CUDA device the buffers are page-locked, so that copies
            need not wait. The CPU if None.
    """
    if start >= stop:
        return
    is_cuda = device is not None and device.type == "cuda"
    buffers = [
        torch.empty(batches.max_batch_bytes, dtype=torch.uint8, pin_memory=is_cuda).numpy()
        for _ in range(2)
    ]
    sent: list[torch.cuda.Event | None] = [None, None]

    def read(step: int) -> Batch:
        event = sent[step % 2]
        if event is not None:
            event.synchronize()
        return batches.read(step, buffers[step % 2])

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as reader:
        ahead = reader.submit(read, start)
        for step in range(start, stop):
            batch = ahead.result()
            if step + 1 < stop:
                ahead = reader.submit(read, step + 1)
            yield batch
            if is_cuda:
                sent[step % 2] = torch.cuda.current_stream(device).record_event()


def num_real_tokens(batch: Batch) -> int:
    """Count tokens that hold at least one weight."""
    return batch.num_real_tokens
