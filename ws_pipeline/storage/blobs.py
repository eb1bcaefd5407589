"""Bytes named by their sha256, written once.

What it is: ``blobs/sha256/<first two>/<sha256>`` in an object folder. Writing the same bytes again
is fine and cheap; other bytes under the same name cannot happen. What it is not: a record of who
refers to a blob (manifests do). Does I/O.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ws_pipeline.errors import IntegrityError, Reason, RefusedError
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.objects import (
    TEMPORARY_FOLDER,
    HashingWriter,
    ObjectFolder,
    disk_errors,
    hash_file,
)
from ws_pipeline.storage.parts import PartFolder

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobRef:
    """Which bytes: their sha256 in lower-case hex, and how many."""

    sha256: str
    num_bytes: int


def blob_key(sha256: str) -> str:
    """Return the key of a blob.

    Raises:
        RefusedError: If ``sha256`` is not 64 lower-case hex digits.
    """
    if not _SHA256.fullmatch(sha256):
        raise RefusedError(
            f"A blob is named by 64 lower-case hexadecimal digits; got {sha256[:80]!r}.",
            reason=Reason.UNSAFE_FILE_NAME,
        )
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobStore:
    """Content-addressed bytes in an object folder.

    Args:
        folder: Where the blobs lie.
        cache: Local folder for verified copies of remote blobs (:meth:`local_path`).
    """

    folder: ObjectFolder
    cache: Path

    def put_bytes(self, data: bytes) -> BlobRef:
        """Store bytes; idempotent."""
        ref = BlobRef(sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data))
        key = blob_key(ref.sha256)
        if not self.folder.exists(key):
            self.folder.create_bytes(key, data)
        return ref

    def put_many(self, contents: Sequence[bytes]) -> list[BlobRef]:
        """Store several small blobs together; idempotent. All are stored when it returns."""
        refs = [
            BlobRef(sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data))
            for data in contents
        ]
        self.folder.create_many(
            {blob_key(ref.sha256): data for ref, data in zip(refs, contents, strict=True)}
        )
        return refs

    def put_file(self, path: Path, *, sha256: str | None = None) -> BlobRef:
        """Store a copy of a file; idempotent, constant memory.

        Args:
            path: The file; one from :meth:`temporary_path` or :attr:`parts` is linked, not copied.
            sha256: What the bytes have to be.

        Raises:
            IntegrityError: If the file's bytes have another digest; nothing is stored.
        """
        actual, num_bytes = hash_file(path)
        _check_digest(actual, sha256, str(path))
        key = blob_key(actual)
        if not self.folder.exists(key):
            self._create(key, path, actual, num_bytes)
        return BlobRef(sha256=actual, num_bytes=num_bytes)

    def _create(self, key: str, path: Path, sha256: str, num_bytes: int) -> None:
        is_local = isinstance(self.folder, LocalFolder)
        if not is_local or self._is_temporary(path):
            self.folder.create_file(key, path)
            return
        self.folder.check_space(num_bytes)
        with self.folder.temporary_path() as temporary:
            with disk_errors(f"blob {sha256[:12]}"):
                shutil.copyfile(path, temporary)
            # The source may have changed between hashing and copying: the copy is what counts.
            _check_digest(hash_file(temporary)[0], sha256, str(path))
            self.folder.create_file(key, temporary)

    def _is_temporary(self, path: Path) -> bool:
        return path.resolve().is_relative_to(Path(self.folder.root).resolve() / TEMPORARY_FOLDER)

    @contextlib.contextmanager
    def temporary_path(self) -> Iterator[Path]:
        """Give a local path to build a file at, from which :meth:`put_file` does not copy."""
        with self.folder.temporary_path() as path:
            yield path

    @contextlib.contextmanager
    def writer(self, num_bytes: int) -> Iterator[HashingWriter]:
        """Give a writer whose bytes become a blob when the block ends without an error.

        Each byte is hashed as it is written, and never read again.

        Args:
            num_bytes: About how many will come.

        Raises:
            NoSpaceError: If they do not fit now.
        """
        self.check_space(num_bytes)
        with self.temporary_path() as path:
            with path.open("wb") as file:
                writer = HashingWriter(file)
                yield writer
                with disk_errors("a blob"):
                    file.flush()
            self.folder.create_file(blob_key(writer.sha256), path)

    @property
    def parts(self) -> PartFolder:
        """Where blobs that are still coming are kept; :meth:`put_file` does not copy from there."""
        is_local = isinstance(self.folder, LocalFolder)
        return PartFolder(root=Path(self.folder.root) if is_local else self.cache)

    def check_space(self, num_bytes: int) -> None:
        """Require that ``num_bytes`` more fit where parts are kept.

        Raises:
            NoSpaceError: If they do not fit now.
            RefusedError: If the whole disk is too small. What a stranger states as a size must not
                look like a full disk, which ends a run.
        """
        folder = LocalFolder(root=str(self.parts.root))
        folder.check_space(0)
        total = shutil.disk_usage(folder.root).total
        if num_bytes > total:
            raise RefusedError(
                f"{num_bytes} bytes are more than the whole disk under {folder.root} has.",
                reason=Reason.FILE_TOO_LARGE,
            )
        folder.check_space(num_bytes)

    def remove(self, sha256: str) -> None:
        """Remove a blob and its cached copy, for good; fine if there is none.

        The caller has made sure that no reader needs it (``hub.eviction``).
        """
        self.folder.remove(blob_key(sha256))
        LocalFolder(root=str(self.cache)).remove(blob_key(sha256))

    def exists(self, sha256: str) -> bool:
        """Say whether the blob is stored."""
        return self.folder.exists(blob_key(sha256))

    def num_bytes(self, sha256: str) -> int:
        """Return the blob's size."""
        return self.folder.num_bytes(blob_key(sha256))

    def read(self, sha256: str) -> bytes:
        """Return the whole blob, verified.

        Raises:
            IntegrityError: If the stored bytes are no longer what their name says.
        """
        data = self.folder.read(blob_key(sha256))
        _check_digest(hashlib.sha256(data).hexdigest(), sha256, f"blob {sha256[:12]}")
        return data

    def read_range(self, sha256: str, start: int, num_bytes: int) -> bytes:
        """Return exactly ``num_bytes`` from ``start``; the digest cannot be checked."""
        return self.folder.read_range(blob_key(sha256), start, num_bytes)

    def local_path(self, sha256: str) -> Path:
        """Return a local file with the blob's bytes. It must not be changed.

        The file itself for a local store, else a copy in the cache, verified when it is made.
        """
        key = blob_key(sha256)
        if isinstance(self.folder, LocalFolder):
            self.folder.num_bytes(key)
            return self.folder.path(key)
        cached = LocalFolder(root=str(self.cache))
        if not cached.exists(key):
            self._fill_cache(cached, key, sha256)
        return cached.path(key)

    def _fill_cache(self, cached: LocalFolder, key: str, sha256: str) -> None:
        total = self.folder.num_bytes(key)
        cached.check_space(total)
        with cached.temporary_path() as temporary:
            with disk_errors(f"the cached blob {sha256[:12]}"), temporary.open("wb") as file:
                for start in range(0, total, _CACHE_CHUNK_BYTES):
                    size = min(_CACHE_CHUNK_BYTES, total - start)
                    file.write(self.folder.read_range(key, start, size))
            _check_digest(hash_file(temporary)[0], sha256, self.folder.uri(key))
            cached.create_file(key, temporary)


_CACHE_CHUNK_BYTES = 64 * 1024**2  # one ranged GET; S3 guides advise 8 to 64 MiB


def _check_digest(actual: str, expected: str | None, what: str) -> None:
    if expected is not None and actual != expected:
        raise IntegrityError(
            f"{what} should have sha256 {expected[:12]}..., but its bytes have {actual[:12]}...; "
            "fetch it again."
        )
