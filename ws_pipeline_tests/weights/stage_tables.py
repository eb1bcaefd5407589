"""A store with downloaded repos in it, as ``hub/files`` leaves them. Not a test module."""

from pathlib import Path

import polars as pl

from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store


def open_store(folder: Path) -> Store:
    return Store.open(folder / "store", cache=folder / "cache")


def store_repos(store: Store, repos: dict[str, Path]) -> pl.DataFrame:
    """Store the safetensors files and config.json of each folder; the ``hub/files`` table."""
    rows = []
    for name, folder in repos.items():
        files = []
        for path in sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")]):
            blob = store.blobs.put_file(path)
            files.append({"path": path.name, "sha256": blob.sha256, "num_bytes": blob.num_bytes})
        identity = {"hub_id": f"id-{name}", "repo_id": f"zoo/{name}", "revision": "r1"}
        key = manifest_key("files", identity["hub_id"], "r1", "1")
        store.manifests.create(key, {**identity, "files": files})
        verdict = {"accepted": True, "reason": "", "detail": "", "reused": False}
        rows.append({**identity, **verdict, "manifest": key})
    return pl.DataFrame(rows)
