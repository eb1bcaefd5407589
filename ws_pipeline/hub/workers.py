"""A few requests at a time, results in order, nothing left behind after an error. No own I/O."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

NUM_WORKERS = 4
"""Requests under way; the hub's budget per five minutes is the limit, not our cores."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_in_order(function: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[_Out]:
    """Yield ``function`` of each item in order, from NUM_WORKERS threads.

    An exception ends the iteration; calls that have not begun are then dropped.
    """
    pool = ThreadPoolExecutor(max_workers=NUM_WORKERS, thread_name_prefix="hub")
    try:
        futures = [pool.submit(function, item) for item in items]
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
