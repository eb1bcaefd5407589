"""Tensor names, dtypes and shapes of every repo of a family, without downloading a model.

What it is: one range request per file for most headers, a second one for long headers, the verdict
kept for ever in a create-only manifest. A refusal follows from bytes that were checked against the
hub's digest, or for files longer than the first request, that came twice. What it is not: the
header's parser, which is handed in (it lies in a higher package), nor the choice of repos
(``selection``). Network and store I/O.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import polars as pl

from ws_pipeline.errors import HeaderError, HubError, MissingInputError, Reason, RefusedError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.repo import TRANSIENT_REASONS, accept, accepted_rows, build_frame, refuse
from ws_pipeline.hub.weight_files import MAX_INDEX_BYTES, find_weight_files, parse_index
from ws_pipeline.hub.workers import map_in_order
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store

TRIAGE_VERSION = "2"
"""Part of the manifest's key: raise it when the same bytes would get another verdict."""

PREFIX_BYTES = 100_000
"""The first request; holds the whole header of 97 % of the public hub's files (huggingface_hub)."""

MAX_HEADER_BYTES = 16 * 1024**2
"""The parser's own cap, which keeps us from asking for more than it would take."""

MAX_MODEL_TENSORS = 200_000
"""Over all files of a model, as many as one header may hold: 2,048 shards must not add up."""

MAX_MODEL_HEADER_BYTES = 64 * 1024**2
"""Over all files of a model: a tensor's entry takes 100 to 200 bytes, metadata the rest."""

LENGTH_BYTES = 8

TENSOR_STRUCT = pl.Struct(
    {
        "file": pl.String(),
        "name": pl.String(),
        "dtype": pl.String(),
        "shape": pl.List(pl.Int64()),
        "num_params": pl.Int64(),
        "num_bytes": pl.Int64(),
        "start": pl.Int64(),
        "end": pl.Int64(),
    }
)

HEADER_PAYLOAD: dict[str, pl.DataType] = {
    "files": pl.List(
        pl.Struct({"path": pl.String(), "header_bytes": pl.Int64(), "num_bytes": pl.Int64()})
    ),
    "tensors": pl.List(TENSOR_STRUCT),
    "num_tensors": pl.Int64(),
    "num_params": pl.Int64(),
    "num_bytes": pl.Int64(),  # of the tensors
    "dtypes": pl.List(pl.String()),
    "signature": pl.String(),
}

ParseHeader = Callable[[bytes, int], dict[str, Any]]
"""``weights.header_pool.parse_header_apart``: (first bytes, size of the file) -> record."""


def triage_family(
    client: HubClient, store: Store, repos: pl.DataFrame, *, parse: ParseHeader
) -> pl.DataFrame:
    """Read the headers of a family's accepted repos.

    Args:
        client: The hub.
        store: Where verdicts are kept.
        repos: The ``hub/repos`` table.
        parse: Turns a header into a record with ``header_bytes`` and ``tensors``; raises
            HeaderError.

    Returns:
        The ``hub/headers`` table: KEY_SCHEMA and HEADER_PAYLOAD. A verdict that follows from the
        bytes is taken from its manifest (``reused``) or stored in one; a hub that does not answer,
        or that closes the repo to us, is a row that the next run tries again.
    """
    rows = accepted_rows(repos)
    return build_frame(
        map_in_order(lambda row: _triage_repo(client, store, row, parse), rows), HEADER_PAYLOAD
    )


def compute_signature(tensors: list[dict[str, Any]]) -> str:
    """Return 16 hex digits over the sorted names and shapes: equal for models of one shape."""
    shapes = sorted((tensor["name"], list(tensor["shape"])) for tensor in tensors)
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


def _triage_repo(
    client: HubClient, store: Store, row: dict[str, Any], parse: ParseHeader
) -> dict[str, Any]:
    key = manifest_key("headers", row["hub_id"], row["revision"], TRIAGE_VERSION)
    stored = store.manifests.read_if_exists(key)
    if stored is not None:
        return _stage_row(row, stored, reused=True)
    try:
        verdict = {"reason": "", "detail": "", **_read_headers(client, row, parse)}
    except MissingInputError:  # something of ours, and no verdict on a repo
        raise
    except (HubError, RefusedError) as error:
        verdict = {"reason": str(error.reason), "detail": str(error)}
        if isinstance(error, HubError) or error.reason in TRANSIENT_REASONS:
            return _stage_row(row, verdict, reused=False)
    store.manifests.create(key, verdict)
    return _stage_row(row, verdict, reused=False)


def _stage_row(row: dict[str, Any], verdict: dict[str, Any], *, reused: bool) -> dict[str, Any]:
    payload = {name: verdict[name] for name in HEADER_PAYLOAD if name in verdict}
    if verdict["reason"]:
        return refuse(row, verdict["reason"], verdict["detail"], reused=reused, **payload)
    return accept(row, reused=reused, **payload)


def _read_headers(client: HubClient, row: dict[str, Any], parse: ParseHeader) -> dict[str, Any]:
    stated = {file["path"]: file for file in row["files"]}
    paths, index = find_weight_files(stated)
    weight_map: dict[str, str] = {}
    if index:
        weight_map = parse_index(_read_index(client, row, stated[index]), stated)
        paths = sorted(set(weight_map.values()))
    files, tensors = [], []
    for path in paths:
        record, num_bytes = (
            _read_header(client, row, stated[path], parse),
            stated[path]["num_bytes"],
        )
        files.append({"path": path, "header_bytes": record["header_bytes"], "num_bytes": num_bytes})
        tensors += [{"file": path} | tensor for tensor in record["tensors"]]
        _check_totals(len(tensors), sum(file["header_bytes"] for file in files))
    _check_tensors(tensors, weight_map)
    return {
        "files": files,
        "tensors": tensors,
        "num_tensors": len(tensors),
        "num_params": sum(tensor["num_params"] for tensor in tensors),
        "num_bytes": sum(tensor["num_bytes"] for tensor in tensors),
        "dtypes": sorted({tensor["dtype"] for tensor in tensors}),
        "signature": compute_signature(tensors),
    }


def _read_index(client: HubClient, row: dict[str, Any], file: dict[str, Any]) -> bytes:
    if not 0 < file["num_bytes"] <= MAX_INDEX_BYTES:
        raise RefusedError(
            f"The index of a sharded model may have {MAX_INDEX_BYTES} bytes, "
            f"it has {file['num_bytes']}.",
            reason=Reason.INVALID_INDEX,
        )
    where = (row["repo_id"], row["revision"], file["path"])
    return client.read_file(
        *where, max_bytes=file["num_bytes"], sha256=file["sha256"], blob_id=file["blob_id"]
    )


def _read_header(
    client: HubClient, row: dict[str, Any], file: dict[str, Any], parse: ParseHeader
) -> dict[str, Any]:
    """Return the parsed header of one file.

    Of a short file the digest is checked. Of a long one it cannot be, so a header that is refused
    is read once more: a verdict is for ever, bytes that were damaged on their way are not.
    """
    path, num_bytes = file["path"], file["num_bytes"]
    if num_bytes < LENGTH_BYTES:
        raise HeaderError(
            f"{path} has {num_bytes} bytes, fewer than a safetensors file's length field.",
            reason=Reason.HEADER_TRUNCATED,
        )
    head = _read_head(client, row, file)
    try:
        return parse(head, num_bytes)
    except HeaderError as error:
        if num_bytes > PREFIX_BYTES and _read_head(client, row, file) != head:
            raise HubError(
                f"The header of {path} of {row['repo_id']} came twice with different bytes; it is "
                "read again in the next run."
            ) from error
        raise HeaderError(f"{path}: {error}", reason=error.reason) from error


def _read_head(client: HubClient, row: dict[str, Any], file: dict[str, Any]) -> bytes:
    """Return at least a file's header, from one range request or two."""
    where, num_bytes = (row["repo_id"], row["revision"], file["path"]), file["num_bytes"]
    if num_bytes <= PREFIX_BYTES:
        digests = {"sha256": file["sha256"], "blob_id": file["blob_id"]}
        return client.read_range(*where, 0, num_bytes, **digests)
    head = client.read_range(*where, 0, PREFIX_BYTES)
    header_bytes = LENGTH_BYTES + int.from_bytes(head[:LENGTH_BYTES], "little")
    # A length beyond the cap or the file needs no second request: the parser refuses it as it is.
    if len(head) < header_bytes <= min(MAX_HEADER_BYTES + LENGTH_BYTES, num_bytes):
        head += client.read_range(*where, len(head), header_bytes - len(head))
    return head


def _check_totals(num_tensors: int, header_bytes: int) -> None:
    """Bound what the headers of all shards add up to, while they are read."""
    if num_tensors > MAX_MODEL_TENSORS:
        raise HeaderError(
            f"A model may have {MAX_MODEL_TENSORS} tensors in all its files; this one has more.",
            reason=Reason.HEADER_TOO_MANY_TENSORS,
        )
    if header_bytes > MAX_MODEL_HEADER_BYTES:
        raise HeaderError(
            f"The headers of a model's files may have {MAX_MODEL_HEADER_BYTES} bytes; "
            f"these have {header_bytes} or more.",
            reason=Reason.HEADER_TOO_LARGE,
        )


def _check_tensors(tensors: list[dict[str, Any]], weight_map: dict[str, str]) -> None:
    """Require that no tensor comes twice over all files, and that the index keeps its word."""
    files = {tensor["name"]: tensor["file"] for tensor in tensors}
    if len(files) != len(tensors):
        raise HeaderError(
            "A tensor's name comes in more than one file of the model.",
            reason=Reason.HEADER_DUPLICATE_NAME,
        )
    for name, path in weight_map.items():
        if files.get(name) != path:
            raise RefusedError(
                f"The index puts {name[:80]!r} into {path[:80]}, which does not hold it.",
                reason=Reason.INVALID_INDEX,
            )
