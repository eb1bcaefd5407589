"""Whole Parquet tables under stable keys, replaced atomically.

What it is: ``tables/<key>.parquet``; one writer per key, any number of readers, each of which sees
one whole version. What it is not: append or merge (read, change, write), or a history
(``snapshots``). Does I/O.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.objects import ObjectFolder, disk_errors

_SUFFIX = ".parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class TableStore:
    """Parquet tables by key, such as ``hub/repos/bert``."""

    folder: ObjectFolder

    def write(self, key: str, frame: pl.DataFrame | pl.LazyFrame) -> int:
        """Replace the table; return the number of rows."""
        path = _path(key)
        self.folder.check_space(0)
        with self.folder.temporary_path() as temporary:
            write_parquet(frame, temporary, what=f"table {key}")
            num_rows = int(pl.scan_parquet(temporary).select(pl.len()).collect().item())
            self.folder.replace_file(path, temporary)
        return num_rows

    def scan(self, key: str) -> pl.LazyFrame:
        """Return the table as it is now; MissingInputError if there is none.

        The version is pinned at this call: a writer that replaces the table does not change what
        the lazy frame reads.
        """
        return scan_object(self.folder, _path(key))

    def exists(self, key: str) -> bool:
        """Say whether the table is stored."""
        return self.folder.exists(_path(key))

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of all tables below the folder ``prefix``, sorted."""
        found = self.folder.keys("/".join(["tables", *filter(None, prefix.split("/"))]))
        return [key[len("tables/") : -len(_SUFFIX)] for key in found if key.endswith(_SUFFIX)]

    def uri(self, key: str) -> str:
        """Return where the table lies, for people and for metadata."""
        return self.folder.uri(_path(key))


def write_parquet(frame: pl.DataFrame | pl.LazyFrame, path: Path, *, what: str) -> None:
    """Write a Parquet file with zstd and statistics."""
    metadata: Mapping[str, str] = {"writer": "ws_pipeline"}
    with disk_errors(what):
        if isinstance(frame, pl.LazyFrame):
            frame.sink_parquet(path, compression="zstd", metadata=dict(metadata))
        else:
            frame.write_parquet(path, compression="zstd", metadata=dict(metadata))


def scan_object(folder: ObjectFolder, path: str) -> pl.LazyFrame:
    """Scan one version of a Parquet object.

    Locally the open file pins the inode. Remotely the object is fetched in one GET, because a scan
    by ranges could mix two versions.
    """
    if not isinstance(folder, LocalFolder):
        return pl.scan_parquet(io.BytesIO(folder.read(path)))
    folder.num_bytes(path)
    with folder.path(path).open("rb") as file:
        return pl.scan_parquet(file)


def _path(key: str) -> str:
    return f"tables/{key}{_SUFFIX}"
