"""The selected models' files, verified and stored by content.

What it is: every safetensors file that triage named, and config.json, streamed into the store's
blobs with its digest checked on the way, then a manifest that lists them. A file that the store has
is not fetched again, from whichever repo it came; one that a killed process had begun is gone on
with. What it is not: a look at the values (``weights``). Network and store I/O.
"""

import os
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.errors import (
    BusyError,
    HubError,
    IntegrityError,
    NoSpaceError,
    Reason,
    RefusedError,
)
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.eviction import NO_BUDGET, DiskBudget
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
    *,
    budget: DiskBudget = NO_BUDGET,
) -> pl.DataFrame:
    """Store the files of every selected repo revision.

    Args:
        client: The hub.
        store: Where blobs and manifests go.
        repos: ``hub/repos``: sizes and digests as the hub states them.
        selection: ``hub/selection``.
        headers: ``hub/headers``: which files are the model.
        budget: How much disk the files may take, and which of them are not needed any more. A
            revision whose files it counts as done is not fetched again when they were evicted.

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
        return _store_repo(client, store, row, [known[path] for path in paths], budget)

    rows = [
        row
        for row in accepted_rows(selection)
        if _revision(row) in stated and _revision(row) in named
    ]
    return build_frame(map_in_order(store_repo, rows), FILES_PAYLOAD)


def _revision(row: dict[str, Any]) -> tuple[str, str]:
    return row["hub_id"], row["revision"]


def _store_repo(
    client: HubClient,
    store: Store,
    row: dict[str, Any],
    files: list[dict[str, Any]],
    budget: DiskBudget,
) -> dict[str, Any]:
    key = manifest_key("files", row["hub_id"], row["revision"], DOWNLOAD_VERSION)
    manifest = store.manifests.read_if_exists(key)
    reused = manifest is not None and (
        all(store.blobs.exists(file["sha256"]) for file in manifest["files"])
        or budget.is_done(*_revision(row))
    )
    if manifest is None or not reused:
        try:
            _reserve(store, files, budget)
            stored = [_store_file(client, store, row, file) for file in files]
        except NoSpaceError:
            raise
        except (HubError, IntegrityError, BusyError, RefusedError) as error:
            is_network = error.reason == Reason.UNREACHABLE
            return refuse(row, Reason.DOWNLOAD_FAILED if is_network else error.reason, str(error))
        fresh = {name: row[name] for name in ("repo_id", "hub_id", "revision")}
        manifest = manifest or fresh | {"files": stored}
        store.manifests.create(key, manifest)
    sizes = [file["num_bytes"] for file in manifest["files"]]
    return accept(row, reused=reused, manifest=key, num_files=len(sizes), num_bytes=sum(sizes))


def _reserve(store: Store, files: list[dict[str, Any]], budget: DiskBudget) -> None:
    """Make room for all files of a repo at once: half a repo is of no use to anyone."""
    missing = [
        file["num_bytes"]
        for file in files
        if not (file["sha256"] and budget.keep(store, file["sha256"]))
    ]
    budget.reserve(sum(missing))


def _store_file(
    client: HubClient,
    store: Store,
    row: dict[str, Any],
    file: dict[str, Any],
) -> dict[str, Any]:
    """Fetch one file unless its bytes are stored; return its manifest entry."""
    path, num_bytes = file["path"], file["num_bytes"]
    if path == CONFIG_FILE and num_bytes > MAX_CONFIG_FILE_BYTES:
        raise RefusedError(
            f"config.json may have {MAX_CONFIG_FILE_BYTES} bytes, it has {num_bytes}.",
            reason=Reason.FILE_TOO_LARGE,
        )
    sha256 = file["sha256"]
    if sha256 and store.blobs.exists(sha256):
        store.blobs.parts.discard(sha256)
        return {"path": path, "sha256": sha256, "num_bytes": num_bytes}
    store.blobs.check_space(num_bytes)
    where = (row["repo_id"], row["revision"], path)
    with disk_errors(f"{path} of {row['repo_id']}"):
        if sha256:
            _fetch_resumable(client, store, where, sha256, num_bytes)
        else:
            with store.blobs.temporary_path() as temporary:
                sha256 = client.download(
                    *where, temporary, blob_id=file["blob_id"], num_bytes=num_bytes
                )
                store.blobs.put_file(temporary, sha256=sha256)
    return {"path": path, "sha256": sha256, "num_bytes": num_bytes}


def _fetch_resumable(
    client: HubClient, store: Store, where: tuple[str, str, str], sha256: str, num_bytes: int
) -> None:
    """Fetch a file of a known digest, going on where a killed process stopped."""
    with store.blobs.parts.lock(sha256) as part:
        if store.blobs.exists(sha256):  # somebody fetched it while we waited for the lock
            part.unlink()
            return
        had_bytes = part.stat().st_size > 0
        try:
            client.download(*where, part, sha256=sha256, num_bytes=num_bytes)
        except IntegrityError:
            os.truncate(part, 0)
            if not had_bytes:
                part.unlink()
                raise
            # The bytes we had may be the damaged ones: a disk can lose them when power fails.
            _fetch_whole(client, part, where, sha256, num_bytes)
        store.blobs.put_file(part, sha256=sha256)
        part.unlink()


def _fetch_whole(
    client: HubClient, part: Path, where: tuple[str, str, str], sha256: str, num_bytes: int
) -> None:
    try:
        client.download(*where, part, sha256=sha256, num_bytes=num_bytes)
    except IntegrityError:
        part.unlink()
        raise
