"""The shard of a model, opened and turned back into its files. Does I/O.

A shard holds one tensor ``values.<dtype>`` per dtype: layer after layer in plan order, each layer's
matrix [W|b] row-major, no padding, in the source's dtype. Then ``carried.<name>`` for every tensor
that is kept verbatim. It is independent of any recipe. The layer table and the source files'
headers, for :func:`restore_files`, lie beside it (``shards``). Not here: how one is written
(``weights.packing``). docs/formats.md has the bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ws_pipeline.errors import IntegrityError
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import ELEMENT_TYPES
from ws_pipeline.weights.header import (
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    HeaderLimits,
    parse_header,
)
from ws_pipeline.weights.matrix import split_matrix
from ws_pipeline.weights.packing import (
    CARRIED_PREFIX,
    VALUES_PREFIX,
    tensor_names,
    write_array,
)
from ws_pipeline.weights.plan import Layer, Treatment

SHARD_NAME = "tokens.safetensors"

SHARD_LIMITS = HeaderLimits(
    max_header_bytes=2 * MAX_HEADER_BYTES,
    max_tensors=MAX_TENSORS + len(ELEMENT_TYPES),
    max_name_bytes=MAX_NAME_BYTES + len(CARRIED_PREFIX),
)
"""A source's caps plus what a shard adds to its names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """What restores one source file around its tensors: name, header verbatim, size of the data."""

    name: str
    header_text: str
    data_bytes: int


def open_shard(path: Path) -> Checkpoint:
    """Open a shard file; its tensors are ``values.<dtype>`` and ``carried.<name>``."""
    return Checkpoint.open_files([(SHARD_NAME, path)], limits=SHARD_LIMITS)


def read_layer(shard: Checkpoint, layer: TokenLayer) -> npt.NDArray[Any]:
    """Read the true weights of one layer, ``(rows, cols)`` in the source's dtype."""
    values = shard.read_flat(VALUES_PREFIX + layer.dtype, layer.offset, layer.num_values)
    return values.reshape(layer.rows, layer.cols)


def restore_files(
    shard: Checkpoint,
    layers: Sequence[Layer],
    token_layers: Sequence[TokenLayer],
    sources: Sequence[SourceFile],
    paths: Mapping[str, Path],
) -> None:
    """Write the source files back, byte for byte, each to ``paths[its name]``.

    Files appear under their names only when every tensor of every file has been set.

    Raises:
        IntegrityError: A tensor of a source header comes from no layer; nothing is left behind.
    """
    partial = {name: path.with_name(path.name + ".partial") for name, path in paths.items()}
    try:
        _fill_files(shard, layers, token_layers, sources, partial)
        for name, path in paths.items():
            partial[name].replace(path)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def _fill_files(
    shard: Checkpoint,
    layers: Sequence[Layer],
    token_layers: Sequence[TokenLayer],
    sources: Sequence[SourceFile],
    paths: Mapping[str, Path],
) -> None:
    places: dict[str, tuple[Path, int, int]] = {}
    for source in sources:
        places |= _lay_out_file(source, paths[source.name])
    by_name = {layer.name: layer for layer in token_layers}
    restored: set[str] = set()
    # Tied copies last: they read nothing but the layer they repeat.
    for layer in layers:
        original = layer.tied_to or layer.name
        for name, values in _restore_layer(shard, layer, by_name.get(original), layers):
            path, offset, num_bytes = places[name]
            if values.nbytes != num_bytes:
                raise IntegrityError(f"{name} must have {num_bytes} bytes, not {values.nbytes}.")
            with path.open("r+b") as file:
                file.seek(offset)
                write_array(file, values)
            restored.add(name)
    missing = sorted(places.keys() - restored)
    if missing:
        raise IntegrityError(
            f"Every tensor must be restored, {len(missing)} were not, the first is {missing[0]!r}; "
            "the layer table does not belong to these files."
        )


def _lay_out_file(source: SourceFile, path: Path) -> dict[str, tuple[Path, int, int]]:
    """Write a file's header, give it its full size, and return where each tensor goes."""
    text = source.header_text.encode("utf-8")
    raw = len(text).to_bytes(LENGTH_BYTES, "little") + text
    header = parse_header(raw, file_bytes=len(raw) + source.data_bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + source.data_bytes)
    return {
        tensor.name: (path, len(raw) + tensor.start, tensor.num_bytes) for tensor in header.tensors
    }


def _restore_layer(
    shard: Checkpoint, layer: Layer, token_layer: TokenLayer | None, layers: Sequence[Layer]
) -> list[tuple[str, npt.NDArray[Any]]]:
    """Return (tensor name, values) of the one or two tensors of a layer."""
    if layer.treatment is Treatment.CARRIED:
        return [
            (name, shard.read_flat(CARRIED_PREFIX + name))
            for name in tensor_names(layer)
            if CARRIED_PREFIX + name in shard.tensors
        ]
    if token_layer is None:
        return []
    if layer.treatment is Treatment.EXCLUDED:
        original = next(other for other in layers if other.name == layer.tied_to)
        weight, _ = split_matrix(original, read_layer(shard, token_layer))
        return [(layer.name, weight)]
    weight, bias = split_matrix(layer, read_layer(shard, token_layer))
    restored = [(layer.name, weight)]
    return restored if bias is None else [*restored, (layer.bias_name, bias)]
