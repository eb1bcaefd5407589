"""The shard: one model's tokenised numbers as a safetensors file, written and restored. Does I/O.

A shard holds one tensor ``values.<dtype>`` per dtype: layer after layer in plan order, each layer's
matrix [W|b] row-major, no padding, in the source's dtype, times two to minus its scale exponent.
Then ``carried.<name>`` for every tensor that is kept verbatim. It is independent of any recipe. The
layer table and the source files' headers, for :func:`restore_files`, lie beside it (``shards``).
docs/formats.md has the bytes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import IntegrityError, Reason, WeightsError
from ws_pipeline.tokens.layer_blocks import find_exact_exponent, scaled_blocks
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import ELEMENT_TYPES
from ws_pipeline.weights.header import (
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    HeaderLimits,
    TensorInfo,
    parse_header,
)
from ws_pipeline.weights.matrix import split_matrix
from ws_pipeline.weights.normalization import choose_scale_exponent, unscale_layer
from ws_pipeline.weights.plan import Layer, Treatment
from ws_pipeline.weights.statistics import LayerStatistics
from ws_pipeline.weights.values import TensorValues

SHARD_NAME = "tokens.safetensors"
VALUES_PREFIX = "values."
CARRIED_PREFIX = "carried."
SHARD_METADATA = {"format": "ws_pipeline.tokens", "version": "1"}

SHARD_LIMITS = HeaderLimits(
    max_header_bytes=2 * MAX_HEADER_BYTES,
    max_tensors=MAX_TENSORS + len(ELEMENT_TYPES),
    max_name_bytes=MAX_NAME_BYTES + len(CARRIED_PREFIX),
)
"""A source's caps plus what a shard adds to its names."""

ALIGNMENT_BYTES = 8
"""The data starts on a multiple of this, as the official writer has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """What restores one source file around its tensors: name, header verbatim, size of the data."""

    name: str
    header_text: str
    data_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One tensor of a shard that is about to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


@runtime_checkable
class Sink(Protocol):
    """Where bytes go, in one sequence."""

    def write(self, data: bytes | memoryview, /) -> Any:
        """Take all of ``data``."""


def write_shard(
    checkpoint: Checkpoint,
    layers: Sequence[Layer],
    statistics: Sequence[LayerStatistics | None],
    out: Sink,
) -> tuple[TokenLayer, ...]:
    """Write a model's shard to ``out``, block by block.

    Args:
        checkpoint: The model.
        layers: Its plan.
        statistics: Of each tokenised layer, None of the others.
        out: Where the bytes go.

    Returns:
        The tokenised layers in plan order.
    """
    entries = _plan_entries(checkpoint, layers)
    out.write(encode_header(entries))
    written: dict[int, TokenLayer] = {}
    for entry in entries:
        if entry.name.startswith(VALUES_PREFIX):
            written |= _write_values(checkpoint, layers, statistics, entry.dtype, out)
        else:
            name = entry.name.removeprefix(CARRIED_PREFIX)
            for block in TensorValues(checkpoint, name).chunks():
                _write_array(out, block)
    return tuple(written[index] for index in sorted(written))


def encode_header(entries: Sequence[_Entry]) -> bytes:
    """Return the length word and the JSON of a shard's header, padded with spaces to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": SHARD_METADATA}
    start = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [start, start + entry.num_bytes],
        }
        start += entry.num_bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def open_shard(path: Path) -> Checkpoint:
    """Open a shard file; its tensors are ``values.<dtype>`` and ``carried.<name>``."""
    return Checkpoint.open_files([(SHARD_NAME, path)], limits=SHARD_LIMITS)


def read_layer(shard: Checkpoint, layer: TokenLayer) -> npt.NDArray[Any]:
    """Read the true weights of one layer, ``(rows, cols)`` in the source's dtype."""
    values = shard.read_flat(VALUES_PREFIX + layer.dtype, layer.offset, layer.num_values)
    return unscale_layer(values, layer.scale_exponent).reshape(layer.rows, layer.cols)


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


def _plan_entries(checkpoint: Checkpoint, layers: Sequence[Layer]) -> list[_Entry]:
    """List the shard's tensors: widest dtype first, so that each stays aligned, then by name."""
    num_values: dict[str, int] = {}
    num_bytes: dict[str, int] = {}
    entries: list[_Entry] = []
    for layer in layers:
        if layer.treatment is Treatment.TOKENISED:
            num_values[layer.dtype] = num_values.get(layer.dtype, 0) + layer.num_params
            num_bytes[layer.dtype] = num_bytes.get(layer.dtype, 0) + layer.num_bytes
        elif layer.treatment is Treatment.CARRIED:
            entries += [_carry(checkpoint.tensors[name]) for name in _tensor_names(layer)]
    entries += [
        _Entry(
            name=VALUES_PREFIX + dtype,
            dtype=dtype,
            shape=(count,),
            num_bytes=num_bytes[dtype],
        )
        for dtype, count in num_values.items()
    ]
    return sorted(entries, key=lambda entry: (-ELEMENT_TYPES[entry.dtype].bits, entry.name))


def _tensor_names(layer: Layer) -> list[str]:
    return [layer.name, layer.bias_name] if layer.bias_name else [layer.name]


def _carry(tensor: TensorInfo) -> _Entry:
    return _Entry(
        name=CARRIED_PREFIX + tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        num_bytes=tensor.num_bytes,
    )


def _write_values(
    checkpoint: Checkpoint,
    layers: Sequence[Layer],
    statistics: Sequence[LayerStatistics | None],
    dtype: str,
    out: Sink,
) -> dict[int, TokenLayer]:
    written: dict[int, TokenLayer] = {}
    offset = 0
    for layer, measured in zip(layers, statistics, strict=True):
        if layer.treatment is not Treatment.TOKENISED or layer.dtype != dtype:
            continue
        if measured is None:
            raise WeightsError(
                f"The tokenised layer {layer.name} must have a mean and a standard deviation.",
                reason=Reason.INTERNAL,
            )
        exponent = find_exact_exponent(
            checkpoint, layer, choose_scale_exponent(measured.std), measured.w_min, measured.w_max
        )
        for block in scaled_blocks(checkpoint, layer, exponent):
            _write_array(out, block)
        written[layer.index] = TokenLayer(
            name=layer.name,
            role=str(layer.role),
            block=layer.block,
            depth=layer.depth,
            dtype=dtype,
            offset=offset,
            rows=layer.rows,
            cols=layer.matrix_cols,
            scale_exponent=exponent,
            mean=measured.mean,
            std=measured.std,
        )
        offset += layer.num_params
    return written


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
                _write_array(file, values)
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
            for name in _tensor_names(layer)
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


def _write_array(out: Sink, values: npt.NDArray[Any]) -> None:
    out.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
