"""Where a download's bytes go, and what they turn out to be. Writes the one file it is given.

What it is: an open file, the digest of what it holds, and how to go on or begin anew. What it is
not: the requests (``transport``) or the verdict on the digest (``client``).
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from ws_pipeline.errors import IntegrityError


@runtime_checkable
class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(kw_only=True, slots=True)
class FileSink:
    """Where a download's bytes go: a file open for appending."""

    file: BinaryIO
    num_bytes: int
    have: int = 0
    digest: _Digest = field(default_factory=hashlib.sha256)

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.have += len(data)
        if self.have > self.num_bytes:
            raise IntegrityError(
                f"The hub sends more than the {self.num_bytes} bytes that it stated; given up."
            )
        self.digest.update(data)
        self.file.write(data)

    def resume(self) -> None:
        """Take in what the file holds."""
        self.file.seek(0)
        while chunk := self.file.read(1 << 20):
            self.have += len(chunk)
            self.digest.update(chunk)
        if self.have > self.num_bytes:
            self.restart()

    def restart(self) -> None:
        """Forget what came: the server does not resume."""
        self.file.truncate(0)  # it is open for appending: the next write goes to the new end
        self.have, self.digest = 0, hashlib.sha256()


def is_blob(sink: FileSink, path: Path, blob_id: str) -> bool:
    """Say whether a file is the git blob of that id."""
    digest = _start_blob(blob_id, sink.num_bytes)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == blob_id


def is_content(data: bytes, *, sha256: str, blob_id: str) -> bool:
    """Say whether bytes are those of a sha256, or where there is none, the git blob of an id."""
    if sha256:
        return hashlib.sha256(data).hexdigest() == sha256
    digest = _start_blob(blob_id, len(data))
    digest.update(data)
    return not blob_id or digest.hexdigest() == blob_id


def _start_blob(blob_id: str, num_bytes: int) -> _Digest:
    algorithm = "sha1" if len(blob_id) == 40 else "sha256"
    return hashlib.new(algorithm, b"blob %d\0" % num_bytes, usedforsecurity=False)
