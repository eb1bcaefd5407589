"""One root, local or S3, with its blobs, manifests, snapshots and tables.

What it is: the one object that the rest of the project is handed. What it is not: configuration
from the environment (the caller names the root). Opening a store sweeps what killed
writers left a day ago, downloads a week ago; opening a local one creates its folder. Does I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ws_pipeline.errors import RefusedError, StorageError
from ws_pipeline.storage.blobs import BlobStore
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.manifests import ManifestStore
from ws_pipeline.storage.objects import ObjectFolder, disk_errors
from ws_pipeline.storage.s3 import S3Folder
from ws_pipeline.storage.snapshots import SnapshotStore
from ws_pipeline.storage.tables import TableStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """Where everything that the pipeline keeps lies.

    Args:
        root: A local folder or ``s3://bucket/prefix``.
    """

    root: str
    blobs: BlobStore = field(repr=False)
    manifests: ManifestStore = field(repr=False)
    snapshots: SnapshotStore = field(repr=False)
    tables: TableStore = field(repr=False)

    @classmethod
    def open(
        cls,
        root: str | Path,
        *,
        storage_options: Mapping[str, Any] | None = None,
        cache: Path | None = None,
    ) -> "Store":
        """Open a store, creating a local root.

        Args:
            root: A local folder or ``s3://bucket/prefix``.
            storage_options: s3fs options for an S3 root; credentials otherwise come from AWS_*.
            cache: Where copies of remote blobs go; ``~/.cache/ws_pipeline`` when None.

        Raises:
            RefusedError: If the root names a scheme other than s3.
            StorageError: If a local root cannot be created.
        """
        folder = _open_folder(str(root), storage_options or {})
        cache = Path.home() / ".cache" / "ws_pipeline" if cache is None else cache
        blobs = BlobStore(folder=folder, cache=cache)
        LocalFolder(root=str(blobs.parts.root)).sweep_orphans()
        blobs.parts.sweep()
        return cls(
            root=folder.root,
            blobs=blobs,
            manifests=ManifestStore(folder=folder),
            snapshots=SnapshotStore(folder=folder),
            tables=TableStore(folder=folder),
        )


def _open_folder(root: str, storage_options: Mapping[str, Any]) -> ObjectFolder:
    if root.startswith("s3://"):
        if not root.removeprefix("s3://").split("/")[0]:
            raise RefusedError(
                f"An S3 store needs a bucket, as in s3://bucket/prefix; got {root!r}."
            )
        remote = S3Folder.open(root, storage_options)
        remote.sweep_orphans()
        return remote
    if "://" in root:
        raise RefusedError(f"A store is a local folder or s3://bucket/prefix; got {root!r}.")
    path = Path(root).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise StorageError(f"The store's root must be a folder, but {path} is a file.")
    with disk_errors(f"the store at {path}"):
        path.mkdir(parents=True, exist_ok=True)
    return LocalFolder(root=str(path))
