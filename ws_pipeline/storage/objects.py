"""The few operations on named objects that everything in the store is made of.

What it is: one small interface (:class:`ObjectFolder`), and what its implementations (``local``,
``s3``, ``overlay``) share. A key is a relative path of safe segments. An object is published whole
or not at all: readers never see a half-written one, two racing creators of one key cannot both win.
What it is not: a cache, a listing service, or anything that knows what the bytes mean. Does I/O
where a file is hashed or written.
"""

import contextlib
import errno
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from ws_pipeline.errors import (
    MissingInputError,
    NoSpaceError,
    Reason,
    RefusedError,
    StorageError,
)

RESERVE_BYTES = 64 * 1024**2
"""Free bytes that a write leaves on the disk: SQLite and Dagster's event log share it with us."""

CHUNK_BYTES = 4 * 1024**2
"""Read size when a file is hashed or copied; above 1 MiB the rate no longer changes."""

ORPHAN_AGE_SECONDS = 24 * 3600
"""A temporary file older than this belongs to a killed process."""

MAX_KEY_BYTES = 512
"""S3 allows 1024 bytes for a key with its prefix."""

TEMPORARY_FOLDER = ".tmp"

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,199}")


@runtime_checkable
class ObjectFolder(Protocol):
    """Named objects under one root, published whole."""

    @property
    def root(self) -> str:
        """Where the objects lie: a folder or ``s3://bucket/prefix``."""

    def create_bytes(self, key: str, data: bytes) -> bool:
        """Publish ``data`` unless ``key`` exists; say whether it was created."""

    def create_many(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        """Publish each of several small objects unless its key exists; the keys of the created.

        One flush, or many requests at a time, in place of one after the other. All of them are
        stored when it returns; before that, any of them may be visible, each of them whole.
        """

    def create_file(self, key: str, path: Path) -> bool:
        """Publish a file unless ``key`` exists; the file may be consumed."""

    def replace_file(self, key: str, path: Path) -> None:
        """Publish a file over whatever ``key`` holds; the file may be consumed."""

    def exists(self, key: str) -> bool:
        """Say whether ``key`` is published."""

    def num_bytes(self, key: str) -> int:
        """Return the object's size; MissingInputError if there is none."""

    def read(self, key: str) -> bytes:
        """Return the whole object; MissingInputError if there is none."""

    def read_range(self, key: str, start: int, num_bytes: int) -> bytes:
        """Return exactly ``num_bytes`` from ``start``; StorageError on a short read."""

    def keys(self, prefix: str) -> list[str]:
        """Return the published keys below the folder ``prefix``, sorted."""

    def remove(self, key: str) -> None:
        """Take ``key`` away; fine if there is none. Only for what no reader can come to need."""

    def uri(self, key: str) -> str:
        """Return where ``key`` lies, for people and for metadata."""

    def temporary_path(self) -> contextlib.AbstractContextManager[Path]:
        """Give a fresh local path, from which publishing is cheap; removed on exit."""

    def check_space(self, num_bytes: int) -> None:
        """Raise NoSpaceError when ``num_bytes`` more would not fit."""


def check_key(key: str) -> str:
    """Return ``key`` if it is made of safe segments.

    Raises:
        RefusedError: If a segment is empty, hidden, longer than 200 characters or holds anything
            but letters, digits and ``._=+-``; or if the key is longer than MAX_KEY_BYTES.
    """
    if len(key) > MAX_KEY_BYTES or not all(_SEGMENT.fullmatch(part) for part in key.split("/")):
        raise RefusedError(
            f"A store key must be segments of letters, digits and ._=+- joined by '/', "
            f"at most {MAX_KEY_BYTES} characters; got {key[:80]!r}.",
            reason=Reason.UNSAFE_FILE_NAME,
        )
    return key


def hash_file(path: Path) -> tuple[str, int]:
    """Return a file's sha256 and size in one pass."""
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    return digest.hexdigest(), num_bytes


class HashingWriter:
    """Writes to a file and hashes what it writes, so that nothing has to be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``.

        Raises:
            NoSpaceError: The disk is full.
            StorageError: Something else is wrong with it.
        """
        with disk_errors("a file"):
            self._file.write(data)
        self._digest.update(data)
        self.num_bytes += memoryview(data).nbytes

    @property
    def sha256(self) -> str:
        """The digest of everything written so far, in hex."""
        return self._digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a full disk into NoSpaceError and other OS errors into StorageError.

    polars raises its own exception types and names errno 28 in the text only.
    """
    try:
        yield
    except (NoSpaceError, StorageError, MissingInputError):
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "os error 28" in str(error) or "No space left on device" in str(error):
            raise NoSpaceError(
                f"The disk is full: {what} could not be written. "
                "Free some space or point --home at a larger disk, then run again."
            ) from error
        if isinstance(error, OSError):
            raise StorageError(f"{what} could not be written: {error}.") from error
        raise


def check_range(start: int, num_bytes: int) -> None:
    """Refuse a range that no object can have."""
    if start < 0 or num_bytes < 0:
        raise RefusedError(f"A range must not be negative; got start {start}, {num_bytes} bytes.")


def check_length(data: bytes, num_bytes: int, uri: str) -> bytes:
    """Return ``data`` if it has the length that was asked for."""
    if len(data) != num_bytes:
        raise StorageError(f"{uri} gave {len(data)} bytes where {num_bytes} were asked for.")
    return data
