"""One driver at a time in a home: a lock on a file, which ends with its process. Does I/O.

Two drivers would crawl the same families into the same tables and run the same stale stages twice.
Runs of a Dagster daemon are not drivers; its own limits keep those apart.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ws_pipeline.errors import Reason, RefusedError

LOCK_NAME = "driver.lock"


@contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Hold the home for the time of a block.

    Raises:
        RefusedError: With ``conflict``, if another process holds it.
    """
    path = home / LOCK_NAME
    lock = FileLock(path, on_acquired=_sign, preserve_lock_file=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RefusedError(
            f"Another ws-pipeline command is at work in {home}{_holder(path)}; wait until it has "
            "ended, or name another home with --home.",
            reason=Reason.CONFLICT,
        ) from error
    try:
        yield
    finally:
        lock.release()


def _sign(descriptor: int) -> None:
    """Say in the file who holds it: for people, nothing depends on it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _holder(path: Path) -> str:
    try:
        pid = path.read_text()
    except OSError:
        return ""
    return f" (process {pid})" if pid.isdigit() else ""
