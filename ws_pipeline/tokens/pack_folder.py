"""``ws-pipeline tokens pack`` and ``unpack``: a checkpoint to token files and back. Does I/O.

A pack folder holds ``tokens.safetensors`` (the shard), ``layers.parquet`` (one row per layer of the
plan, with statistics and, where tokenised, its place in the shard) and ``manifest.json``, written
last: a folder without it is not complete. No hub, no store.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.bounded_json import BoundedJsonError, load_json
from ws_pipeline.errors import IntegrityError, MissingInputError, WeightsError
from ws_pipeline.storage.objects import HashingWriter, file_sha256
from ws_pipeline.tokens.manifests import read_sources, read_token_layers
from ws_pipeline.tokens.records import derive_token_layers, token_layer_to_record
from ws_pipeline.tokens.shard_format import SHARD_NAME, open_shard, restore_files
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.model_files import SUFFIX
from ws_pipeline.weights.model_plan import plan_model
from ws_pipeline.weights.packing import (
    SHARD_METADATA,
    UNFIT_REASONS,
    Statistics,
    describe_sources,
    plan_checkpoint,
    write_shard,
)
from ws_pipeline.weights.plan import LayerPlan
from ws_pipeline.weights.records import LAYER_STRUCT, layer_from_record, layer_to_record

LAYERS_NAME = "layers.parquet"
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "model.safetensors.index.json"

MAX_MANIFEST_BYTES = 2**30
"""It repeats the headers of all source files."""


def pack_path(path: Path, out: Path) -> dict[str, Any]:
    """Pack a safetensors file, a sharded folder or a repo folder into the folder ``out``.

    Returns:
        The manifest: num_values, num_params, layers, sources, shard (sha256, num_bytes).

    Layers with numbers that cannot be learned from (NaN, infinity, beyond float32) are carried, so
    that any checkpoint can be packed.

    Raises:
        WeightsError: The files do not make one model.
    """
    checkpoint = Checkpoint.open(path)
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    with _replacing(out / SHARD_NAME) as partial:
        plan, statistics, shard = _write_shard(checkpoint, partial)
    plans = [
        layer_to_record(layer, measured)
        for layer, measured in zip(plan.layers, statistics, strict=True)
    ]
    token_layers = derive_token_layers(plans)
    places = {layer.name: layer.offset for layer in token_layers}
    schema = {field.name: field.dtype for field in LAYER_STRUCT.fields} | {"offset": pl.Int64()}
    with _replacing(out / LAYERS_NAME) as partial:
        records = [record | {"offset": places.get(record["name"])} for record in plans]
        pl.DataFrame(records, schema=schema).write_parquet(partial)
    manifest = {
        **SHARD_METADATA,
        "num_values": sum(layer.num_values for layer in token_layers),
        "num_params": sum(tensor.num_params for tensor in checkpoint.tensors.values()),
        "layers": [token_layer_to_record(layer) for layer in token_layers],
        "sources": describe_sources(checkpoint),
        "shard": {"sha256": shard.sha256, "num_bytes": shard.num_bytes},
        "layers_sha256": file_sha256(out / LAYERS_NAME),
    }
    with _replacing(out / MANIFEST_NAME) as partial:
        partial.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    return manifest


def unpack_path(folder: Path, out: Path) -> list[Path]:
    """Restore the checkpoint of a pack folder, byte for byte.

    Args:
        folder: What :func:`pack_path` wrote.
        out: The file to write; for a model of several files, or where ``out`` is a folder or does
            not end in ``.safetensors``, the folder that gets the files under their own names.

    Raises:
        MissingInputError: ``folder`` is not a complete pack folder.
        IntegrityError: Its files are not those that its manifest names, or a tensor would stay
            unset.
    """
    manifest = _read_manifest(folder)
    sources = read_sources(manifest)
    is_file = len(sources) == 1 and out.suffix == SUFFIX and not out.is_dir()
    target = out.parent if is_file else out
    if not is_file and out.is_file():
        raise WeightsError(f"{out} must be a folder: the model has {len(sources)} files.")
    paths = {source.name: out if is_file else target / source.name for source in sources}
    layers = pl.read_parquet(folder / LAYERS_NAME)
    restore_files(
        open_shard(folder / SHARD_NAME),
        [layer_from_record(record) for record in layers.iter_rows(named=True)],
        read_token_layers(manifest),
        sources,
        paths,
    )
    if len(sources) > 1:
        _write_index(paths, target)
    return sorted(paths.values())


def _write_shard(checkpoint: Checkpoint, path: Path) -> tuple[LayerPlan, Statistics, HashingWriter]:
    """Write the shard in one pass; where a layer is unfit, all are looked at, then written."""
    plan = plan_model(checkpoint)
    with path.open("wb") as file:
        shard = HashingWriter(file)
        try:
            return plan, write_shard(checkpoint, plan, shard), shard
        except WeightsError as error:
            if error.reason not in UNFIT_REASONS:
                raise
    plan, _ = plan_checkpoint(checkpoint, carry_unfit=True)
    with path.open("wb") as file:
        shard = HashingWriter(file)
        return plan, write_shard(checkpoint, plan, shard), shard


def _write_index(paths: dict[str, Path], target: Path) -> None:
    """Write the shard index again, from the restored headers, so that the folder loads."""
    checkpoint = Checkpoint.open_files(sorted(paths.items()))
    index = {
        "metadata": {"total_size": checkpoint.data_bytes},
        "weight_map": {tensor.name: tensor.file for tensor in checkpoint.tensors.values()},
    }
    with _replacing(target / INDEX_NAME) as partial:
        partial.write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise MissingInputError(
            f"{folder} must hold {SHARD_NAME}, {LAYERS_NAME} and {MANIFEST_NAME}; make it with "
            "`ws-pipeline tokens pack`."
        )
    try:
        manifest = load_json(path.read_bytes(), max_bytes=MAX_MANIFEST_BYTES, max_depth=16)
        if {key: manifest[key] for key in SHARD_METADATA} != SHARD_METADATA:
            raise IntegrityError(f"{path} was written by another version of this format.")
        digests = {SHARD_NAME: manifest["shard"]["sha256"], LAYERS_NAME: manifest["layers_sha256"]}
    except (BoundedJsonError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is not a tokens manifest: {error}.") from error
    for name, digest in digests.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise IntegrityError(f"{folder / name} is not the file its manifest names; pack again.")
    return dict(manifest)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path, and move it to ``path`` when the block ends without an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
