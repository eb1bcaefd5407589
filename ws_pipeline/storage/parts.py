"""Files that are still coming, kept between processes under the digest they will have.

What it is: ``<root>/.tmp/parts/<sha256>``, locked while somebody writes to it, so that a download
goes on where a killed one stopped and two processes never share one. What it is not: published;
readers do not look here, and nothing is believed of a part but its name. Does I/O.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ws_pipeline.errors import BusyError
from ws_pipeline.storage.objects import TEMPORARY_FOLDER, disk_errors

PART_AGE_SECONDS = 7 * 24 * 3600
"""A part that nobody went on with for a week is not wanted any more; crawls are nightly."""

WAIT_SECONDS = 900.0
"""How long one download waits for another of the same file; then it is a row for the next run."""

POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFolder:
    """Part files under one root.

    Args:
        root: A local folder; for a remote store that of its cache.
    """

    root: Path

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self.root / TEMPORARY_FOLDER / "parts"

    @contextlib.contextmanager
    def lock(self, sha256: str, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[Path]:
        """Give the part of a file to come, to this caller alone; it may hold the first bytes.

        The part stays when the block ends, with or without an error: whoever is done with it
        removes it, before the block ends.

        Raises:
            BusyError: If somebody else held it all the time.
        """
        path = self.folder / sha256
        with disk_errors("a part file"):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = _open_locked(path, time.monotonic() + wait_seconds)
        try:
            yield path
        finally:
            os.close(descriptor)

    def discard(self, sha256: str) -> None:
        """Remove the part of a file that is published, unless somebody is at it.

        A writer killed between publishing and tidying up leaves one.
        """
        path = self.folder / sha256
        if path.exists():
            with contextlib.suppress(OSError):
                os.close(_lock(path))
                path.unlink()

    def sweep(self, *, now: float | None = None) -> int:
        """Remove parts that nobody went on with; return how many.

        Args:
            now: Seconds since the epoch; the clock's when None.
        """
        limit = (time.time() if now is None else now) - PART_AGE_SECONDS
        num_swept = 0
        for path in self.folder.glob("*"):
            with contextlib.suppress(OSError):  # swept by another process, or in use
                if path.stat().st_mtime < limit:
                    os.close(_lock(path))
                    path.unlink()
                    num_swept += 1
        return num_swept


def _open_locked(path: Path, deadline: float) -> int:
    """Return a descriptor that holds the lock of the file that is at ``path`` now."""
    while True:
        try:
            descriptor = _lock(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BusyError(
                    f"Another process is fetching {path.name[:12]}...; run again when it is done."
                ) from None
            time.sleep(POLL_SECONDS)
            continue
        if _is_private(path, descriptor):
            return descriptor
        os.close(descriptor)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_private(path: Path, descriptor: int) -> bool:
    """Say whether the locked file is still the one at ``path``, and nobody's blob.

    A writer killed between publishing and tidying up leaves a part that is a second name of a
    published blob: writing to it would change the blob.
    """
    locked = os.fstat(descriptor)
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    if (found.st_dev, found.st_ino) != (locked.st_dev, locked.st_ino):
        return False
    if locked.st_nlink > 1:
        path.unlink(missing_ok=True)
        return False
    return True
