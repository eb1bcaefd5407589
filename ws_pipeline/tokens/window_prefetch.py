"""Reading ahead of a training from a store that is far away. Does I/O, in threads."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ws_pipeline.errors import WsPipelineError
from ws_pipeline.tokens.layer_values import ShardValues

PREFETCH_STEPS = 4
"""Steps that are fetched from a remote store ahead of the one that is read."""

PREFETCH_THREADS = 8
"""Requests under way at a time."""


class Prefetch:
    """Reads of the steps to come; a read that fails will fail again where it matters.

    Args:
        list_reads: Yields (values of the model, dtype, first value, number of values) of a step.
    """

    def __init__(
        self, list_reads: Callable[[int], Iterator[tuple[ShardValues, int, int, int]]]
    ) -> None:
        self._list_reads = list_reads
        self._pool = ThreadPoolExecutor(PREFETCH_THREADS, thread_name_prefix="prefetch")
        self._begun = range(0)

    def reach(self, step: int, last: int) -> None:
        """Have the steps from ``step`` to ``last`` under way."""
        if step not in self._begun:
            self._begun = range(step, step)
        for each in range(self._begun.stop, last + 1):
            for values, *where in self._list_reads(each):
                self._pool.submit(_warm, values, *where)
        self._begun = range(step, max(self._begun.stop, last + 1))

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        self._pool.shutdown(cancel_futures=True)


def _warm(values: ShardValues, dtype: int, start: int, count: int) -> None:
    with contextlib.suppress(WsPipelineError):
        values.warm(dtype, start, count)
