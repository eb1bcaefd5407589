"""Immutable Parquet tables named by the digest of their content.

What it is: ``snapshots/<digest>.parquet``, for the list of manifests that an experiment used.
What it is not: a table that changes (``tables``). Does I/O; :func:`frame_digest` does not.
"""

import hashlib
import json
import re
from dataclasses import dataclass

import polars as pl

from ws_pipeline.errors import RefusedError
from ws_pipeline.storage.objects import ObjectFolder
from ws_pipeline.storage.tables import scan_object, write_parquet

_DIGEST = re.compile(r"[0-9a-f]{64}")

_ROWS_PER_CHUNK = 4096
"""Rows that are serialised at a time while a frame is digested; bounds the memory."""


def frame_digest(frame: pl.DataFrame) -> str:
    """Return the sha256 of a frame's content: schema and rows, in order.

    Two frames with the same columns, types, values and order have the same digest, whatever their
    chunks or their file's encoding. Rows are taken as NDJSON, where NaN and null look alike.

    Raises:
        RefusedError: If a column is of a type that JSON cannot hold (Binary, Object).
    """
    digest = hashlib.sha256()
    schema = [[name, str(dtype)] for name, dtype in frame.schema.items()]
    for name, dtype in schema:
        if "Binary" in dtype or "Object" in dtype:
            raise RefusedError(f"Column {name} of type {dtype} has no digest; leave it out.")
    digest.update(json.dumps(schema, separators=(",", ":")).encode())
    for start in range(0, frame.height, _ROWS_PER_CHUNK):
        digest.update(frame.slice(start, _ROWS_PER_CHUNK).write_ndjson().encode())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotStore:
    """Immutable frames by digest."""

    folder: ObjectFolder

    def create(self, frame: pl.DataFrame) -> str:
        """Store a frame and return its digest; the same content again is fine."""
        digest = frame_digest(frame)
        path = _path(digest)
        if not self.folder.exists(path):
            self.folder.check_space(0)
            with self.folder.temporary_path() as temporary:
                write_parquet(frame, temporary, what=f"snapshot {digest[:12]}")
                self.folder.create_file(path, temporary)
        return digest

    def scan(self, digest: str) -> pl.LazyFrame:
        """Return a snapshot; MissingInputError if there is none."""
        return scan_object(self.folder, _path(digest))

    def exists(self, digest: str) -> bool:
        """Say whether the snapshot is stored."""
        return self.folder.exists(_path(digest))

    def path(self, digest: str) -> str:
        """Return where the snapshot lies: a file name or ``s3://...``."""
        return self.folder.uri(_path(digest))


def _path(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise RefusedError(f"A snapshot is named by 64 hexadecimal digits; got {digest[:80]!r}.")
    return f"snapshots/{digest}.parquet"
