"""Named objects as files under one directory: the local :class:`~.objects.ObjectFolder`.

Protocol: write to ``<root>/.tmp/<unique>``, flush, then ``link`` (create-only) or ``replace``
(overwrite), then flush the folder. A kill leaves at most an orphan in ``.tmp``. What it is not: S3
(``s3``), or anything that knows what the bytes mean. Does I/O.
"""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ws_pipeline.errors import MissingInputError, NoSpaceError
from ws_pipeline.storage.flush import FlushRound, flush_path
from ws_pipeline.storage.objects import (
    ORPHAN_AGE_SECONDS,
    RESERVE_BYTES,
    TEMPORARY_FOLDER,
    check_key,
    check_length,
    check_range,
    disk_errors,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFolder:
    """Objects as files under one directory."""

    root: str

    def _path(self, key: str) -> Path:
        return Path(f"{self.root}/{check_key(key)}")

    def path(self, key: str) -> Path:
        """Return the file that holds ``key``. Published files are never changed in place."""
        return self._path(key)

    def create_bytes(self, key: str, data: bytes) -> bool:
        """See :class:`~.objects.ObjectFolder`."""
        if self.exists(key):
            return False
        self.check_space(len(data))
        with self.temporary_path() as temporary:
            with disk_errors(key):
                temporary.write_bytes(data)
            return self.create_file(key, temporary)

    def create_file(self, key: str, path: Path) -> bool:
        """See :class:`~.objects.ObjectFolder`. ``path`` must lie on the store's file system."""
        target = self._path(key)
        with disk_errors(key):
            flush_path(path)
            if not _link(path, target):
                return False
            flush_path(target.parent)
        return True

    def create_many(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        """See :class:`~.objects.ObjectFolder`: one flush of all bytes, one of all names."""
        wanted = {key: data for key, data in objects.items() if not self.exists(key)}
        self.check_space(sum(len(data) for data in wanted.values()))
        folder = Path(self.root) / TEMPORARY_FOLDER
        stem = f"{folder}/{os.getpid()}-{uuid.uuid4().hex}"
        paths = {key: Path(f"{stem}-{index}") for index, key in enumerate(wanted)}
        with disk_errors("a group of objects"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with FlushRound(folder) as flush_bytes:
                    for key, path in paths.items():
                        path.write_bytes(wanted[key])
                        flush_bytes.add(path)
                with FlushRound(folder) as flush_names:
                    targets = {key: self._path(key) for key in wanted}
                    created = {key for key in wanted if _link(paths[key], targets[key])}
                    for parent in {targets[key].parent for key in created}:
                        flush_names.add(parent)
            finally:
                for path in paths.values():
                    path.unlink(missing_ok=True)
        return frozenset(created)

    def replace_file(self, key: str, path: Path) -> None:
        """See :class:`~.objects.ObjectFolder`. ``path`` must lie on the store's file system."""
        target = self._path(key)
        with disk_errors(key):
            flush_path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            flush_path(target.parent)

    def exists(self, key: str) -> bool:
        """See :class:`~.objects.ObjectFolder`."""
        return os.path.isfile(f"{self.root}/{check_key(key)}")  # noqa: PTH113 - three times as fast

    def num_bytes(self, key: str) -> int:
        """See :class:`~.objects.ObjectFolder`."""
        with _missing(self.uri(key)):
            return self._path(key).stat().st_size

    def read(self, key: str) -> bytes:
        """See :class:`~.objects.ObjectFolder`."""
        with _missing(self.uri(key)):
            return self._path(key).read_bytes()

    def read_range(self, key: str, start: int, num_bytes: int) -> bytes:
        """See :class:`~.objects.ObjectFolder`."""
        check_range(start, num_bytes)
        with _missing(self.uri(key)), self._path(key).open("rb") as file:
            file.seek(start)
            return check_length(file.read(num_bytes), num_bytes, self.uri(key))

    def keys(self, prefix: str) -> list[str]:
        """See :class:`~.objects.ObjectFolder`."""
        folder = self._path(prefix)
        root = Path(self.root)
        return sorted(p.relative_to(root).as_posix() for p in folder.rglob("*") if p.is_file())

    def remove(self, key: str) -> None:
        """See :class:`~.objects.ObjectFolder`."""
        with disk_errors(key):
            self._path(key).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        """See :class:`~.objects.ObjectFolder`."""
        return str(self._path(key))

    @contextlib.contextmanager
    def temporary_path(self) -> Iterator[Path]:
        """See :class:`~.objects.ObjectFolder`."""
        folder = Path(self.root) / TEMPORARY_FOLDER
        with disk_errors("a temporary file"):
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def check_space(self, num_bytes: int) -> None:
        """See :class:`~.objects.ObjectFolder`; leaves RESERVE_BYTES on the disk."""
        folder = Path(self.root)
        with disk_errors(f"the store at {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < num_bytes + RESERVE_BYTES:
            raise NoSpaceError(
                f"The disk under {folder} has {free / 1e6:.1f} MB free; to write "
                f"{num_bytes / 1e6:.1f} MB and leave {RESERVE_BYTES / 1e6:.0f} MB, more is needed. "
                "Free some space or point --home at a larger disk, then run again."
            )

    def sweep_orphans(self, *, now: float | None = None) -> int:
        """Remove temporary files that killed processes left; return how many.

        Args:
            now: Seconds since the epoch; the clock's when None.
        """
        limit = (time.time() if now is None else now) - ORPHAN_AGE_SECONDS
        num_swept = 0
        for path in (Path(self.root) / TEMPORARY_FOLDER).glob("*"):
            with contextlib.suppress(OSError):  # another process swept it, or may not
                if path.stat().st_mtime < limit:
                    path.unlink()
                    num_swept += 1
        return num_swept


@contextlib.contextmanager
def _missing(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInputError(
            f"There is no object at {uri}; run the step that makes it first."
        ) from error


def _link(path: Path, target: Path) -> bool:
    """Give a file its published name unless that is taken; say whether it got it."""
    if not target.parent.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except FileExistsError:
        return False
    return True
