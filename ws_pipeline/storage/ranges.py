"""Reading ranges of blobs, many and small: from local files, or from S3 through a bounded cache.

What it is: ``read_into`` a buffer of the caller's, ahead of which ``warm`` may be called from other
threads. A local store is read by position with descriptors kept open (the page cache is the cache);
a remote one in blocks that are kept in one local file of fixed size, least recently used out first.
What it is not: whole blobs with a verified digest (``BlobStore.local_path``): a range has no digest
of its own. Does I/O.

The cache file has no name: when the process ends, however it ends, its space is free again, and no
two processes share it. Measured on loopback, see benchmarks/windows.py.
"""

import os
import resource
import tempfile
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Protocol, runtime_checkable

from ws_pipeline.errors import ConfigError, MissingInputError, StorageError
from ws_pipeline.storage.blobs import BlobStore, blob_key
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.objects import ObjectFolder, check_range, disk_errors

MAX_OPEN_FILES = 4096
"""Descriptors that are kept, or half of what the process may have. Opening a file takes 3.5 us, a
call of preadv 0.8."""

BLOCK_BYTES = 64 * 1024
"""Unit of the cache. A window of the small recipe is 0.2 to 0.5 MB, of the tiny one 8 to 16 kB; on
loopback, requests for the blocks around 16 kB take 0.7 to 1.4 times as long as those for 16."""

MAX_REQUEST_BYTES = 8 * 1024**2
"""Adjacent blocks are fetched together up to here; S3 guides advise 8 to 64 MiB."""

DEFAULT_CACHE_BYTES = 8 * 1024**3
"""Bound on the disk that the cache of one process takes."""


@runtime_checkable
class RangeReader(Protocol):
    """Ranges of blobs."""

    def num_bytes(self, sha256: str) -> int:
        """Return a blob's size; MissingInputError if there is none."""

    def read_into(self, sha256: str, start: int, out: memoryview) -> None:
        """Fill ``out`` with the blob's bytes from ``start``; StorageError if it ends before."""

    def warm(self, sha256: str, start: int, num_bytes: int) -> None:
        """Fetch what a later ``read_into`` will want, if that makes it faster."""

    def close(self) -> None:
        """Let go of files; the reader can be used again."""


def open_ranges(blobs: BlobStore, *, cache_bytes: int = DEFAULT_CACHE_BYTES) -> RangeReader:
    """Return the reader for a store's blobs.

    Args:
        blobs: Of a local or a remote store.
        cache_bytes: Bound on local disk, for a remote store.
    """
    if isinstance(blobs.folder, LocalFolder):
        return LocalRanges(blobs.folder)
    return CachedRanges(blobs.folder, blobs.cache, cache_bytes=cache_bytes)


def read_range(reader: RangeReader, sha256: str, start: int, num_bytes: int) -> bytes:
    """Return a range of a blob as fresh bytes."""
    out = bytearray(num_bytes)
    reader.read_into(sha256, start, memoryview(out))
    return bytes(out)


class LocalRanges:
    """Ranges of the blobs of a local store.

    Args:
        folder: Of the blobs.
        max_open_files: Descriptors that are kept.
    """

    def __init__(self, folder: LocalFolder, *, max_open_files: int | None = None) -> None:
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._folder = folder
        self._max_open_files = max_open_files or max(1, min(MAX_OPEN_FILES, allowed))
        self._descriptors: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def num_bytes(self, sha256: str) -> int:
        """See :class:`RangeReader`."""
        return self._folder.num_bytes(blob_key(sha256))

    def read_into(self, sha256: str, start: int, out: memoryview) -> None:
        """See :class:`RangeReader`."""
        with self._lock:  # a descriptor must not be closed, and its number reused, meanwhile
            descriptor = self._descriptors.get(sha256)
            if descriptor is None:
                descriptor = self._open(sha256)
            else:
                self._descriptors.move_to_end(sha256)
            num_read = os.preadv(descriptor, (out,), start)
            while 0 < num_read < len(out):
                more = os.preadv(descriptor, (out[num_read:],), start + num_read)
                if more == 0:
                    break
                num_read += more
        if num_read != len(out):
            raise StorageError(
                f"Blob {sha256[:12]} ends {len(out) - num_read} bytes before byte "
                f"{start + len(out)}; fetch it again."
            )

    def warm(self, sha256: str, start: int, num_bytes: int) -> None:
        """See :class:`RangeReader`; nothing to do."""

    def close(self) -> None:
        """See :class:`RangeReader`."""
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def _open(self, sha256: str) -> int:
        path = self._folder.path(blob_key(sha256))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MissingInputError(
                f"There is no object at {path}; run the step that makes it first."
            ) from error
        self._descriptors[sha256] = descriptor
        while len(self._descriptors) > self._max_open_files:
            os.close(self._descriptors.popitem(last=False)[1])
        return descriptor


class CachedRanges:
    """Ranges of the blobs of a remote store, block by block; for several threads.

    Args:
        folder: Of the blobs.
        cache: Local folder for the cache file.
        cache_bytes: Bound of that file.
        block_bytes: Unit of reading and of the cache.

    Raises:
        ConfigError: If the bound leaves no room for a block.
    """

    def __init__(
        self,
        folder: ObjectFolder,
        cache: Path,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        if cache_bytes < block_bytes:
            raise ConfigError(
                f"A cache of blocks needs room for one of {block_bytes} bytes, it is given "
                f"{cache_bytes}."
            )
        self._folder = folder
        self._local = LocalFolder(root=str(cache))
        self._block_bytes = block_bytes
        self._max_blocks = cache_bytes // block_bytes
        self._local.check_space(0)  # makes the folder
        with disk_errors("the cache of blocks"), tempfile.TemporaryFile(dir=cache) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._slots: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._coming: set[tuple[str, int]] = set()
        self._sizes: dict[str, int] = {}
        self._changed = threading.Condition()
        self.num_fetched_bytes = 0
        """From the remote store, since the beginning."""

    @property
    def num_cached_bytes(self) -> int:
        """Disk that the cache takes, at most the bound."""
        return len(self._slots) * self._block_bytes

    def num_bytes(self, sha256: str) -> int:
        """See :class:`RangeReader`."""
        size = self._sizes.get(sha256)
        if size is None:
            size = self._sizes[sha256] = self._folder.num_bytes(blob_key(sha256))
        return size

    def read_into(self, sha256: str, start: int, out: memoryview) -> None:
        """See :class:`RangeReader`."""
        block, end = self._cover(sha256, start, len(out))
        while block < end:
            if self._copy_cached(sha256, block, start, out):
                block += 1
                continue
            run = self._claim(sha256, block, end, wait=True)
            if run:
                data = self._fetch(sha256, block, run)
                _copy_overlap(data, block * self._block_bytes, start, out)
            block += run

    def warm(self, sha256: str, start: int, num_bytes: int) -> None:
        """See :class:`RangeReader`."""
        block, end = self._cover(sha256, start, num_bytes)
        while block < end:
            run = self._claim(sha256, block, end, wait=False)
            if run:
                self._fetch(sha256, block, run)
            block += max(run, 1)

    def close(self) -> None:
        """See :class:`RangeReader`; empties the cache."""
        with self._changed:
            self._slots.clear()
            os.ftruncate(self._descriptor, 0)

    def _cover(self, sha256: str, start: int, num_bytes: int) -> tuple[int, int]:
        """Return the first block of a range and one past its last."""
        check_range(start, num_bytes)
        size = self.num_bytes(sha256)
        if start + num_bytes > size:
            raise StorageError(
                f"Blob {sha256[:12]} has {size} bytes, but {start} to {start + num_bytes} were "
                "asked for; fetch it again."
            )
        return start // self._block_bytes, -(-(start + num_bytes) // self._block_bytes)

    def _copy_cached(self, sha256: str, block: int, start: int, out: memoryview) -> bool:
        """Copy a block's share of the range; False if it is not in the cache."""
        begin = block * self._block_bytes
        low = max(begin, start)
        high = min(begin + self._block_bytes, start + len(out))
        with self._changed:  # the slot must not be given away meanwhile
            slot = self._slots.get((sha256, block))
            if slot is None:
                return False
            self._slots.move_to_end((sha256, block))
            piece = out[low - start : high - start]
            offset = slot * self._block_bytes + low - begin
            return os.preadv(self._descriptor, (piece,), offset) == len(piece)

    def _claim(self, sha256: str, block: int, end: int, *, wait: bool) -> int:
        """Take on the missing blocks from ``block``; how many, 0 if it is there or coming."""
        with self._changed:
            if wait and (sha256, block) in self._coming:
                self._changed.wait()
            stop = min(end, block + max(1, MAX_REQUEST_BYTES // self._block_bytes))
            run = 0
            while block + run < stop and not self._is_known((sha256, block + run)):
                self._coming.add((sha256, block + run))
                run += 1
            return run

    def _is_known(self, key: tuple[str, int]) -> bool:
        return key in self._slots or key in self._coming

    def _fetch(self, sha256: str, block: int, run: int) -> bytes:
        """Read claimed blocks and keep them."""
        start = block * self._block_bytes
        size = min(run * self._block_bytes, self.num_bytes(sha256) - start)
        keys = [(sha256, each) for each in range(block, block + run)]
        try:
            data = self._folder.read_range(blob_key(sha256), start, size)
            with self._changed:
                self.num_fetched_bytes += size
                for index, key in enumerate(keys):
                    first = index * self._block_bytes
                    self._keep(key, memoryview(data)[first : first + self._block_bytes])
        finally:
            with self._changed:
                self._coming.difference_update(keys)
                self._changed.notify_all()
        return data

    def _keep(self, key: tuple[str, int], data: memoryview) -> None:
        if len(self._slots) < self._max_blocks:
            slot = len(self._slots)
            self._local.check_space(len(data))
        else:
            _, slot = self._slots.popitem(last=False)
        with disk_errors("the cache of blocks"):
            os.pwrite(self._descriptor, data, slot * self._block_bytes)
        self._slots[key] = slot


def _copy_overlap(data: bytes, begin: int, start: int, out: memoryview) -> None:
    """Copy what ``data``, which begins at byte ``begin``, has of the range from ``start``."""
    low, high = max(begin, start), min(begin + len(data), start + len(out))
    out[low - start : high - start] = memoryview(data)[low - begin : high - begin]
