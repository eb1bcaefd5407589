"""The stage ``tokens/shards``: the layer table of every packed model, and the way back. Does I/O.

The numbers lie in a blob that ``weights/layers`` wrote while it read the model; where each layer is
in it follows by arithmetic, so no weight is read here. A tokens manifest refers to that blob and to
the layer plan's manifest, which repeats the headers of the source files; that is all
:func:`unpack_model` needs. Not here: the bytes (``weights.packing``, ``shard_format``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.hub.repo import KEY_SCHEMA
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.manifests import read_sources
from ws_pipeline.tokens.pack_folder import pack_path, unpack_path
from ws_pipeline.tokens.records import (
    TOKEN_LAYER_STRUCT,
    derive_token_layers,
    token_layer_to_record,
)
from ws_pipeline.tokens.shard_format import open_shard, restore_files
from ws_pipeline.weights.layers import GROUP_MODELS, LAYERS_VERSION
from ws_pipeline.weights.records import layer_from_record

__all__ = [
    "SHARDS_SCHEMA",
    "SHARDS_STAGE",
    "SHARDS_VERSION",
    "pack_family",
    "pack_path",
    "unpack_model",
    "unpack_path",
]

SHARDS_STAGE = "tokens-shards"
SHARDS_VERSION = f"{LAYERS_VERSION}.2"
"""The layers' version, then that of the layer table."""

SHARDS_SCHEMA: dict[str, pl.DataType] = {
    **KEY_SCHEMA,
    "manifest": pl.String(),
    "shard_sha256": pl.String(),
    "num_values": pl.Int64(),
    "num_params": pl.Int64(),
    "num_bytes": pl.Int64(),
    "layers": pl.List(TOKEN_LAYER_STRUCT),
}


def pack_family(store: Store, layers: pl.DataFrame) -> pl.DataFrame:
    """Make the layer table of every accepted repo of a family's ``weights/layers`` table.

    Args:
        store: Where manifests are.
        layers: The family's ``weights/layers`` table.

    Returns:
        A frame of SHARDS_SCHEMA, one row per accepted row of ``layers``, in its order.
    """
    rows: list[dict[str, Any]] = []
    for group in layers.filter("accepted").iter_slices(GROUP_MODELS):
        rows += _pack_group(store, group)
    return pl.DataFrame(rows, schema=SHARDS_SCHEMA)


def unpack_model(store: Store, tokens_manifest: Mapping[str, Any], out: Path) -> list[Path]:
    """Restore a model's files, byte for byte, into the folder ``out``; their paths.

    Raises:
        IntegrityError: A parameter would stay unset.
    """
    plan = store.manifests.read(tokens_manifest["plan_manifest"])
    sources = read_sources(plan)
    paths = {source.name: out / source.name for source in sources}
    restore_files(
        open_shard(store.blobs.local_path(tokens_manifest["shard"]["sha256"])),
        [layer_from_record(record) for record in plan["layers"]],
        derive_token_layers(plan["layers"]),
        sources,
        paths,
    )
    return sorted(paths.values())


def _pack_group(store: Store, layers: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of some models, whose manifests are flushed together."""
    rows: list[dict[str, Any]] = []
    manifests: dict[str, dict[str, Any]] = {}
    for row in layers.iter_rows(named=True):
        key = manifest_key(SHARDS_STAGE, row["hub_id"], row["revision"], SHARDS_VERSION)
        token_layers = derive_token_layers(row["layers"])
        counts = {
            "num_values": sum(layer.num_values for layer in token_layers),
            "num_params": row["num_params"],
        }
        reused = store.manifests.exists(key)
        if not reused:
            manifests[key] = _describe(row, counts)
        verdict = {"accepted": True, "reason": "", "detail": "", "reused": reused}
        rows.append(
            {name: row[name] for name in ("hub_id", "repo_id", "revision", "shard_sha256")}
            | verdict
            | counts
            | {
                "manifest": key,
                "num_bytes": row["num_shard_bytes"],
                "layers": [token_layer_to_record(layer) for layer in token_layers],
            }
        )
    store.manifests.create_many(manifests)
    return rows


def _describe(row: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the manifest of a model's tokens."""
    identity = {name: row[name] for name in ("hub_id", "repo_id", "revision", "plan_manifest")}
    shard = {"sha256": row["shard_sha256"], "num_bytes": row["num_shard_bytes"]}
    verdict = {"accepted": True, "reason": "", "detail": ""}
    return {**identity, **verdict, **counts, "shard": shard}
