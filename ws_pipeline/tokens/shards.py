"""The stage ``tokens/shards``: a shard per planned repo, and its exact inverse. Does I/O.

A tokens manifest refers to the shard's blob and to the layer plan's manifest, and repeats the
headers of the source files; that is all :func:`unpack_model` needs. Not here: the bytes
(``shard_format``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.errors import RefusedError
from ws_pipeline.hub.repo import KEY_SCHEMA
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.manifests import describe_shard, read_sources, read_token_layers
from ws_pipeline.tokens.pack_folder import pack_path, unpack_path
from ws_pipeline.tokens.records import TOKEN_LAYER_STRUCT
from ws_pipeline.tokens.shard_format import open_shard, restore_files, write_shard
from ws_pipeline.weights.layers import LAYERS_VERSION, PASSING_REASONS, open_repo
from ws_pipeline.weights.records import layer_from_record, statistics_from_record

__all__ = [
    "SHARDS_SCHEMA",
    "SHARDS_STAGE",
    "SHARDS_VERSION",
    "pack_family",
    "pack_model",
    "pack_path",
    "unpack_model",
    "unpack_path",
]

SHARDS_STAGE = "tokens-shards"
SHARDS_VERSION = f"{LAYERS_VERSION}.1"
"""The layers' version, then the shard format's own."""

SHARDS_SCHEMA: dict[str, pl.DataType] = {
    **KEY_SCHEMA,
    "manifest": pl.String(),
    "shard_sha256": pl.String(),
    "num_values": pl.Int64(),
    "num_params": pl.Int64(),
    "num_bytes": pl.Int64(),
    "layers": pl.List(TOKEN_LAYER_STRUCT),
}


def pack_family(store: Store, files: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """Pack every accepted repo of a family's ``weights/layers`` table.

    Args:
        store: Where blobs and manifests are.
        files: The family's ``hub/files`` table, for the manifests of the bytes.
        layers: Its ``weights/layers`` table.

    Returns:
        A frame of SHARDS_SCHEMA, one row per accepted row of ``layers``, in its order.
    """
    manifests = {
        (row["hub_id"], row["revision"]): row["manifest"]
        for row in files.filter("accepted").iter_rows(named=True)
    }
    rows = [
        _pack_row(store, row, manifests.get((row["hub_id"], row["revision"])))
        for row in layers.filter("accepted").iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=SHARDS_SCHEMA)


def pack_model(
    store: Store, files_manifest: Mapping[str, Any], plan: Mapping[str, Any]
) -> dict[str, Any]:
    """Write one model's shard to the store and return what the tokens manifest says of it.

    Args:
        store: Where blobs are.
        files_manifest: Payload of the ``hub/files`` manifest.
        plan: Payload of the ``weights/layers`` manifest (its LAYER records with statistics).
    """
    checkpoint = open_repo(store, files_manifest)
    layers = [layer_from_record(record) for record in plan["layers"]]
    statistics = [statistics_from_record(record) for record in plan["layers"]]
    with store.blobs.writer(checkpoint.data_bytes) as out:
        token_layers = write_shard(checkpoint, layers, statistics, out)
    return describe_shard(checkpoint, token_layers) | {
        "shard": {"sha256": out.sha256, "num_bytes": out.num_bytes},
    }


def unpack_model(store: Store, tokens_manifest: Mapping[str, Any], out: Path) -> list[Path]:
    """Restore a model's files, byte for byte, into the folder ``out``; their paths.

    Raises:
        IntegrityError: A parameter would stay unset.
    """
    plan = store.manifests.read(tokens_manifest["plan_manifest"])
    sources = read_sources(tokens_manifest)
    paths = {source.name: out / source.name for source in sources}
    restore_files(
        open_shard(store.blobs.local_path(tokens_manifest["shard"]["sha256"])),
        [layer_from_record(record) for record in plan["layers"]],
        read_token_layers(tokens_manifest),
        sources,
        paths,
    )
    return sorted(paths.values())


def _pack_row(store: Store, row: Mapping[str, Any], files_key: str | None) -> dict[str, Any]:
    key = manifest_key(SHARDS_STAGE, row["hub_id"], row["revision"], SHARDS_VERSION)
    verdict = store.manifests.read_if_exists(key)
    reused = verdict is not None
    if verdict is None:
        verdict = _judge(store, row, files_key)
        if verdict["reason"] not in PASSING_REASONS:
            store.manifests.create(key, verdict)
    stored_key = None if verdict["reason"] in PASSING_REASONS else key
    payload = {name: verdict.get(name) for name in SHARDS_SCHEMA}
    shard = verdict.get("shard", {})
    return payload | {
        "repo_id": row["repo_id"],
        "reused": reused,
        "manifest": stored_key,
        "shard_sha256": shard.get("sha256"),
        "num_bytes": shard.get("num_bytes"),
    }


def _judge(store: Store, row: Mapping[str, Any], files_key: str | None) -> dict[str, Any]:
    plan_key = row["plan_manifest"]
    identity = {"hub_id": row["hub_id"], "repo_id": row["repo_id"], "revision": row["revision"]}
    identity |= {"plan_manifest": plan_key}
    try:
        plan = store.manifests.read(plan_key)
        payload = pack_model(store, store.manifests.read(files_key or plan["files_manifest"]), plan)
    except RefusedError as error:
        refusal = {"accepted": False, "reason": str(error.reason), "detail": str(error)}
        return identity | refusal | {"layers": []}
    return identity | {"accepted": True, "reason": "", "detail": ""} | payload
