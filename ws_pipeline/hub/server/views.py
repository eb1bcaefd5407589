"""The JSON that the Hub API answers with, made from a repo folder.

Belongs here: field names and shapes of the API, which request shows which field. Does not: routes,
headers, status codes (``routes``). No I/O of its own, though a lazy digest may read files.

Source: https://huggingface.co/docs/hub/api and ``huggingface_hub`` 2.4, ``hf_api.ModelInfo``.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from ws_pipeline.hub.server.files import FileDigest, RepoFile
from ws_pipeline.hub.server.metadata import (
    CONFIG_KEYS,
    count_parameters,
    find_library,
    list_base_models,
    list_tags,
)
from ws_pipeline.hub.server.repo import RepoFolder

ALWAYS = ("_id", "id")
IN_LISTING = (
    *("modelId", "likes", "trendingScore", "private", "downloads", "tags", "pipeline_tag"),
    *("library_name", "createdAt"),
)
IN_FULL_LISTING = (*IN_LISTING, "author", "sha", "lastModified", "gated", "disabled", "siblings")
IN_INFO = (
    *IN_FULL_LISTING,
    *("cardData", "config", "model-index", "safetensors", "usedStorage", "spaces"),
)


def show_repo(repo: RepoFolder, fields: Iterable[str], *, blobs: bool = False) -> dict[str, Any]:
    """Return the asked fields of a repo; a field that the repo has nothing for is left out."""
    shown: dict[str, Any] = {"_id": repo.hub_id, "id": repo.repo_id}
    for name in fields:
        if name in shown:
            continue
        value = _siblings(repo, blobs=True) if name == "siblings" and blobs else FIELDS[name](repo)
        if value is not None:
            shown[name] = value
    return shown


def _siblings(repo: RepoFolder, *, blobs: bool = False) -> list[dict[str, Any]]:
    if not blobs:
        return [{"rfilename": file.path} for file in repo.scan.files]
    return [
        {
            "rfilename": file.path,
            "size": file.num_bytes,
            "blobId": digest.blob_id,
            **({"lfs": _lfs(file, digest, "sha256")} if digest.sha256 else {}),
        }
        for file, digest in zip(repo.scan.files, repo.digests.values(), strict=True)
    ]


def _lfs(file: RepoFile, digest: FileDigest, key: str) -> dict[str, Any]:
    return {key: digest.sha256, "size": file.num_bytes, "pointerSize": digest.pointer_bytes}


def _base_models(repo: RepoFolder) -> dict[str, Any] | None:
    bases, relation = list_base_models(repo.card, repo.names)
    models = [{"id": name} for name in bases]
    return {"relation": relation, "models": models} if bases else None


def _config(repo: RepoFolder) -> dict[str, Any] | None:
    shown = {key: repo.config[key] for key in CONFIG_KEYS if key in repo.config}
    return shown or None


def _safetensors(repo: RepoFolder) -> dict[str, Any] | None:
    names = [name for name in repo.names if name.endswith(".safetensors") and "/" not in name]
    if "model.safetensors" in names:
        names = ["model.safetensors"]
    counts = count_parameters(repo.folder / name for name in names)
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def _pipeline_tag(repo: RepoFolder) -> str | None:
    tag = repo.card.get("pipeline_tag")
    return tag if isinstance(tag, str) else None


def _nothing(_repo: RepoFolder) -> None:
    return None


def repo_tags(repo: RepoFolder) -> list[str]:
    """The tags that ``filter=`` is matched with."""
    return list_tags(repo.card, repo.config, repo.names)


FIELDS: dict[str, Callable[[RepoFolder], Any]] = {
    "author": lambda repo: repo.repo_id.split("/")[0],
    "baseModels": _base_models,
    "cardData": lambda repo: repo.card or None,
    "childrenModelCount": _nothing,
    "config": _config,
    "createdAt": lambda repo: repo.created_at,
    "disabled": lambda repo: repo.disabled,
    "downloads": lambda _repo: 0,
    "downloadsAllTime": lambda _repo: 0,
    "evalResults": _nothing,
    "gated": lambda repo: repo.gated,
    "gguf": _nothing,
    "inference": _nothing,
    "inferenceProviderMapping": _nothing,
    "lastModified": lambda repo: repo.last_modified,
    "library_name": lambda repo: find_library(repo.card, repo.config, repo.names) or None,
    "likes": lambda _repo: 0,
    "mask_token": _nothing,
    "modelId": lambda repo: repo.repo_id,
    "model-index": lambda repo: repo.card.get("model-index"),
    "pipeline_tag": _pipeline_tag,
    "private": lambda repo: repo.private,
    "resourceGroup": _nothing,
    "safetensors": _safetensors,
    "sha": lambda repo: repo.sha,
    "siblings": _siblings,
    "spaces": lambda _repo: [],
    "tags": repo_tags,
    "transformersInfo": _nothing,
    "trendingScore": lambda _repo: 0,
    "usedStorage": lambda repo: sum(file.num_bytes for file in repo.scan.files),
    "widgetData": _nothing,
}
"""Every property that ``expand=`` may name, and how it comes about. A folder has no likes."""


def show_entry(repo: RepoFolder, path: str, *, expand: bool = False) -> dict[str, Any] | None:
    """Return the tree entry of a file or a folder of the repo; None where there is neither."""
    digests = repo.digests
    file = repo.file(path)
    if file is not None:
        digest = digests[path]
        entry = {"type": "file", "oid": digest.blob_id, "size": file.num_bytes, "path": path}
        if digest.sha256:
            entry["lfs"] = _lfs(file, digest, "oid")
    else:
        inside = repo.files_in(path)
        if not path or not inside:
            return None
        lines = "".join(f"{file.path}\0{digests[file.path].blob_id}\n" for file in inside)
        oid = hashlib.sha1(lines.encode()).hexdigest()  # noqa: S324 - git's ids have sha1's length
        entry = {"type": "directory", "oid": oid, "size": 0, "path": path}
    if expand:
        entry["lastCommit"] = {"id": repo.sha, "title": "Folder", "date": repo.last_modified}
    return entry


def list_tree(repo: RepoFolder, folder: str, *, recursive: bool) -> list[str]:
    """Return the paths of files and folders in `folder` ("" for the root), sorted."""
    prefix = f"{folder}/" if folder else ""
    paths: set[str] = set()
    for file in repo.files_in(folder):
        parts = file.path.removeprefix(prefix).split("/")
        depth = len(parts) if recursive else 1
        paths.update(prefix + "/".join(parts[:i]) for i in range(1, depth + 1))
    return sorted(paths)
