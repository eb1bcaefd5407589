"""The selected models' files, verified and stored by content.

What it is: every safetensors file that triage named, and config.json, streamed into the store's
blobs with its digest checked on the way, then a manifest that lists them. A file that the store has
is not fetched again, from whichever repo it came. What it is not: a look at the values
(``weights``). Network and store I/O.
"""

from typing import Any

import polars as pl

from ws_pipeline.errors import HubError, IntegrityError, NoSpaceError, Reason, RefusedError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.repo import accept, accepted_rows, build_frame, refuse
from ws_pipeline.hub.workers import map_in_order
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.objects import disk_errors
from ws_pipeline.storage.store import Store

DOWNLOAD_VERSION = "1"
"""Part of the manifest's key: raise it when the same revision would give other files."""

CONFIG_FILE = "config.json"
MAX_CONFIG_FILE_BYTES = 8 * 1024**2
"""The largest config.json seen lists 50,000 labels in 3 MB."""

FILES_PAYLOAD: dict[str, pl.DataType] = {
    "manifest": pl.String(),
    "num_files": pl.Int64(),
    "num_bytes": pl.Int64(),
}


def download_family(
    client: HubClient,
    store: Store,
    repos: pl.DataFrame,
    selection: pl.DataFrame,
    headers: pl.DataFrame,
) -> pl.DataFrame:
    """Store the files of every selected repo revision.

    Args:
        client: The hub.
        store: Where blobs and manifests go.
        repos: ``hub/repos``: sizes and digests as the hub states them.
        selection: ``hub/selection``.
        headers: ``hub/headers``: which files are the model.

    Returns:
        The ``hub/files`` table: KEY_SCHEMA and FILES_PAYLOAD. A file that did not come, or came
        damaged, is a row that the next run tries again.

    Raises:
        NoSpaceError: As soon as the disk is full; what is stored by then is kept.
    """
    stated = {_revision(row): row["files"] for row in repos.to_dicts()}
    named = {_revision(row): row["files"] for row in accepted_rows(headers)}

    def store_repo(row: dict[str, Any]) -> dict[str, Any]:
        known = {file["path"]: file for file in stated[_revision(row)]}
        paths = [file["path"] for file in named[_revision(row)]]
        paths += [CONFIG_FILE] if CONFIG_FILE in known else []
        return _store_repo(client, store, row, [known[path] for path in paths])

    rows = [
        row
        for row in accepted_rows(selection)
        if _revision(row) in stated and _revision(row) in named
    ]
    return build_frame(map_in_order(store_repo, rows), FILES_PAYLOAD)


def _revision(row: dict[str, Any]) -> tuple[str, str]:
    return row["hub_id"], row["revision"]


def _store_repo(
    client: HubClient, store: Store, row: dict[str, Any], files: list[dict[str, Any]]
) -> dict[str, Any]:
    key = manifest_key("files", row["hub_id"], row["revision"], DOWNLOAD_VERSION)
    manifest = store.manifests.read_if_exists(key)
    reused = manifest is not None and all(
        store.blobs.exists(file["sha256"]) for file in manifest["files"]
    )
    if manifest is None or not reused:
        try:
            stored = [_store_file(client, store, row, file) for file in files]
        except NoSpaceError:
            raise
        except (HubError, IntegrityError, RefusedError) as error:
            is_network = error.reason == Reason.UNREACHABLE
            return refuse(row, Reason.DOWNLOAD_FAILED if is_network else error.reason, str(error))
        fresh = {name: row[name] for name in ("repo_id", "hub_id", "revision")}
        manifest = manifest or fresh | {"files": stored}
        store.manifests.create(key, manifest)
    sizes = [file["num_bytes"] for file in manifest["files"]]
    return accept(row, reused=reused, manifest=key, num_files=len(sizes), num_bytes=sum(sizes))


def _store_file(
    client: HubClient, store: Store, row: dict[str, Any], file: dict[str, Any]
) -> dict[str, Any]:
    """Fetch one file unless its bytes are stored; return its manifest entry."""
    path, num_bytes = file["path"], file["num_bytes"]
    if path == CONFIG_FILE and num_bytes > MAX_CONFIG_FILE_BYTES:
        raise RefusedError(
            f"config.json may have {MAX_CONFIG_FILE_BYTES} bytes, it has {num_bytes}.",
            reason=Reason.FILE_TOO_LARGE,
        )
    sha256 = file["sha256"]
    if not (sha256 and store.blobs.exists(sha256)):
        store.blobs.check_space(num_bytes)
        with store.blobs.temporary_path() as temporary, disk_errors(f"{path} of {row['repo_id']}"):
            sha256 = client.download(
                row["repo_id"],
                row["revision"],
                path,
                temporary,
                sha256=sha256,
                blob_id=file["blob_id"],
                num_bytes=num_bytes,
            )
            store.blobs.put_file(temporary, sha256=sha256)
    return {"path": path, "sha256": sha256, "num_bytes": num_bytes}
