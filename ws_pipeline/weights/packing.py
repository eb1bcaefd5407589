"""One pass over a model: its statistics, and its numbers as a shard, layer after layer. Does I/O.

A part of a layer is read once; while it is in the cache it is measured, turned into rows of the
matrix [W|b] and handed on, hashed and written. What it is not: the plan (``plan``), where a shard
lies (``layers``, ``tokens``), or a layer table: that follows by arithmetic from the plan
(``tokens.records``). The bytes are in docs/formats.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.distributions import measure_values, open_meter
from ws_pipeline.weights.dtypes import ELEMENT_TYPES, is_weight_dtype, widen
from ws_pipeline.weights.header import LENGTH_BYTES, TensorInfo
from ws_pipeline.weights.layer_blocks import Buffers, LayerBlocks
from ws_pipeline.weights.model_plan import plan_model
from ws_pipeline.weights.plan import Layer, LayerPlan, Treatment, carry_layer
from ws_pipeline.weights.role_rules import Role
from ws_pipeline.weights.statistics import LayerStatistics, combine
from ws_pipeline.weights.values import TensorValues

VALUES_PREFIX = "values."
CARRIED_PREFIX = "carried."
SHARD_METADATA = {"format": "ws_pipeline.tokens", "version": "2"}

ALIGNMENT_BYTES = 8
"""The data starts on a multiple of this, as the official writer has it."""

UNFIT_REASONS = frozenset({Reason.NON_FINITE_WEIGHTS, Reason.WEIGHTS_OUT_OF_RANGE})
"""Why a layer's numbers cannot be learned from."""

_RUNNING_ROLES = frozenset({Role.BATCHNORM_MEAN, Role.BATCHNORM_VAR})

Statistics = tuple[LayerStatistics | None, ...]


@runtime_checkable
class Sink(Protocol):
    """Where bytes go, in one sequence."""

    def write(self, data: bytes | memoryview, /) -> Any:
        """Take all of ``data``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One tensor of a shard that is about to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


def plan_checkpoint(
    checkpoint: Checkpoint, *, carry_unfit: bool = False
) -> tuple[LayerPlan, Statistics]:
    """Plan one model and measure its tokenised layers; the statistics align with the plan's layers.

    Args:
        checkpoint: The model.
        carry_unfit: Carry a layer that holds NaN, infinity or numbers beyond float32 verbatim, with
            that reason, instead of refusing the model; take packed models too. Packing a file needs
            that (tables of energies use infinity on purpose); a corpus to learn from does not.

    Raises:
        WeightsError: ``non_finite_weights``, ``weights_out_of_range`` or ``quantized``.
    """
    plan = plan_model(checkpoint)
    if not carry_unfit:
        plan.require_unpacked()
    statistics: list[LayerStatistics | None] = []
    buffers = Buffers()
    for layer in plan.layers:
        try:
            statistics.append(_pack_layer(checkpoint, layer, buffers))
        except WeightsError as error:
            if not carry_unfit or error.reason not in UNFIT_REASONS:
                raise
            plan = carry_layer(plan, layer.name, error.reason)
            statistics.append(None)
    plan.account()
    return plan, tuple(statistics)


def write_shard(checkpoint: Checkpoint, plan: LayerPlan, out: Sink) -> Statistics:
    """Write a model's shard to ``out`` and measure its layers, in one pass.

    Returns:
        Statistics of each tokenised layer, None of the others, in plan order.

    Raises:
        WeightsError: ``non_finite_weights`` or ``weights_out_of_range``, at the first such layer;
            what was written until then is of no use.
    """
    entries = plan_entries(checkpoint.tensors, plan.layers)
    out.write(encode_header(entries))
    statistics: dict[int, LayerStatistics | None] = {}
    buffers = Buffers()
    names = {name: layer for layer in plan.layers for name in tensor_names(layer)}
    for entry in entries:
        if entry.name.startswith(VALUES_PREFIX):
            for layer in plan.tokenised:
                if layer.dtype == entry.dtype:
                    statistics[layer.index] = _pack_layer(checkpoint, layer, buffers, out)
            continue
        name = entry.name.removeprefix(CARRIED_PREFIX)
        if name == names[name].name:
            _require_fit_buffer(checkpoint, names[name])
        for chunk in TensorValues(checkpoint, name).chunks():
            write_array(out, chunk)
    return tuple(statistics.get(layer.index) for layer in plan.layers)


def plan_entries(tensors: Mapping[str, TensorInfo], layers: Sequence[Layer]) -> list[ShardEntry]:
    """List a shard's tensors: widest dtype first, so that each stays aligned, then by name."""
    num_values: dict[str, int] = {}
    entries: list[ShardEntry] = []
    for layer in layers:
        if layer.treatment is Treatment.TOKENISED:
            num_values[layer.dtype] = num_values.get(layer.dtype, 0) + layer.num_params
        elif layer.treatment is Treatment.CARRIED:
            entries += [_carry(tensors[name]) for name in tensor_names(layer)]
    entries += [
        ShardEntry(
            name=VALUES_PREFIX + dtype,
            dtype=dtype,
            shape=(count,),
            num_bytes=count * ELEMENT_TYPES[dtype].bits // 8,
        )
        for dtype, count in num_values.items()
    ]
    return sorted(entries, key=lambda entry: (-ELEMENT_TYPES[entry.dtype].bits, entry.name))


def encode_header(entries: Sequence[ShardEntry]) -> bytes:
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


def describe_sources(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Return what restores each source file around its tensors: name, header, size of the data."""
    return [
        {"name": file.name, "header_text": file.header_text, "data_bytes": file.header.data_bytes}
        for file in checkpoint.files
    ]


def tensor_names(layer: Layer) -> list[str]:
    """Return the one or two tensors of a layer."""
    return [layer.name, layer.bias_name] if layer.bias_name else [layer.name]


def write_array(out: Sink, values: npt.NDArray[Any]) -> None:
    """Write an array's bytes."""
    out.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _pack_layer(
    checkpoint: Checkpoint, layer: Layer, buffers: Buffers, out: Sink | None = None
) -> LayerStatistics | None:
    """Measure a tokenised layer and write it to ``out``, if there is one, part by part."""
    if layer.treatment is not Treatment.TOKENISED:
        _require_fit_buffer(checkpoint, layer)
        return None
    blocks = LayerBlocks(checkpoint, layer, buffers)
    weights = open_meter(layer.name, TensorValues(checkpoint, layer.name))
    for row, part in blocks.parts():
        weights.add(part)
        if out is not None:
            write_array(out, blocks.join(row, part))
    measured = None if blocks.bias is None else measure_values(layer.name, blocks.bias)
    return combine(weights.finish(), measured)


def is_running(layer: Layer) -> bool:
    """Say whether a carried layer holds running statistics, which have to be finite."""
    is_float = is_weight_dtype(layer.dtype)
    return layer.role in _RUNNING_ROLES and is_float and layer.why == Reason.BUFFER


def _require_fit_buffer(checkpoint: Checkpoint, layer: Layer) -> None:
    """Require finite running statistics: a network with NaN in them computes NaN all the same."""
    if is_running(layer) and not np.isfinite(widen(checkpoint.read_flat(layer.name))).all():
        raise WeightsError(
            f"Running statistics must be finite; {layer.name} holds NaN or infinity.",
            reason=Reason.NON_FINITE_WEIGHTS,
        )


def _carry(tensor: TensorInfo) -> ShardEntry:
    return ShardEntry(
        name=CARRIED_PREFIX + tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        num_bytes=tensor.num_bytes,
    )
