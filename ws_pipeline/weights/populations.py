"""Many small models of one architecture packed at once, from stacked arrays. No I/O.

The plan is made once; statistics and the matrices [W|b] of a few hundred models at a time are array
operations. Values and statistics are those of ``packing`` to the bit. Not here: which models go
together (``layers``), one large model (``layer_blocks``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.distributions import LARGEST, MAX_SORTED
from ws_pipeline.weights.dtypes import numpy_dtype, widen
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.matrix import output_geometry
from ws_pipeline.weights.packing import (
    CARRIED_PREFIX,
    VALUES_PREFIX,
    encode_header,
    is_running,
    plan_entries,
)
from ws_pipeline.weights.plan import Layer, LayerPlan, Treatment
from ws_pipeline.weights.row_statistics import combine_rows, measure_rows
from ws_pipeline.weights.statistics import STATISTICS_FIELDS

MODELS_AT_ONCE = 256
"""Enough to make the calls cheap, few enough for a cache: 2.5 MB of a CNN of 2,464 parameters."""

_MIN, _MAX = (STATISTICS_FIELDS.index(name) for name in ("w_min", "w_max"))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedPopulation:
    """The tokenised layers of many models.

    Attributes:
        values: Per dtype the values in token order, ``(num_models, num_values)``; a row is the
            ``values.<dtype>`` tensor of that model's shard.
        statistics: ``(num_models, num_layers, len(STATISTICS_FIELDS))``, layers as in the plan; NaN
            without a bias.
        is_fit: Whether all numbers of a model can be learned from, ``(num_models,)``.
    """

    values: Mapping[str, npt.NDArray[Any]]
    statistics: npt.NDArray[np.float64]
    is_fit: npt.NDArray[np.bool_]


def is_small(plan: LayerPlan) -> bool:
    """Say whether all layers of a model are measured as a whole, and so many models at once."""
    return all(layer.num_params <= MAX_SORTED for layer in plan.tokenised)


def stack_tensors(checkpoints: Sequence[Checkpoint]) -> dict[str, npt.NDArray[Any]]:
    """Return by name the tensors, ``(num_models, *shape)``, of models that were read whole.

    Args:
        checkpoints: Of one small file each, with equal tensors in equal places.
    """
    bodies = [
        np.frombuffer(file.content or b"", np.uint8)[file.header.header_bytes :]
        for (file,) in (checkpoint.files for checkpoint in checkpoints)
    ]
    data = np.stack(bodies)
    return {
        tensor.name: np.ascontiguousarray(data[:, tensor.start : tensor.start + tensor.num_bytes])
        .view(numpy_dtype(tensor.dtype))
        .reshape(len(bodies), *tensor.shape)
        for tensor in checkpoints[0].tensors.values()
    }


def write_shards(
    plan: LayerPlan, tensors: Mapping[str, npt.NDArray[Any]], infos: Mapping[str, TensorInfo]
) -> tuple[list[bytes], PackedPopulation]:
    """Return each model's shard, and what it was made of.

    Args:
        plan: The plan that all models share.
        tensors: By name the tensors of all models, ``(num_models, *shape)``.
        infos: By name what one model's header says of them.
    """
    packed = pack_population(plan.layers, tensors)
    entries = plan_entries(infos, plan.layers)
    header = encode_header(entries)
    columns = []
    for entry in entries:
        if entry.name.startswith(VALUES_PREFIX):
            column = packed.values[entry.dtype]
        else:
            column = tensors[entry.name.removeprefix(CARRIED_PREFIX)]
        columns.append(np.ascontiguousarray(column).reshape(len(packed.is_fit), -1).view(np.uint8))
    rows = np.concatenate(columns, axis=1)
    return [header + row.tobytes() for row in rows], packed


def pack_population(
    layers: Sequence[Layer], tensors: Mapping[str, npt.NDArray[Any]]
) -> PackedPopulation:
    """Measure and lay out the tokenised layers of a population.

    Args:
        layers: The plan that all its models share.
        tensors: By name the tensors of all models, ``(num_models, *shape)``.
    """
    tokenised = [layer for layer in layers if layer.treatment is Treatment.TOKENISED]
    num_models = len(tensors[tokenised[0].name])
    num_values: dict[str, int] = {}
    offsets = []
    for layer in tokenised:
        offsets.append(num_values.get(layer.dtype, 0))
        num_values[layer.dtype] = offsets[-1] + layer.num_params
    packed = PackedPopulation(
        values={
            dtype: np.empty((num_models, count), numpy_dtype(dtype))
            for dtype, count in num_values.items()
        },
        statistics=np.empty((num_models, len(tokenised), len(STATISTICS_FIELDS))),
        is_fit=np.ones(num_models, np.bool_),
    )
    for layer in layers:
        if is_running(layer):
            rows = widen(tensors[layer.name]).reshape(num_models, -1)
            packed.is_fit[:] &= np.isfinite(rows).all(axis=1)
    for start in range(0, num_models, MODELS_AT_ONCE):
        models = slice(start, min(start + MODELS_AT_ONCE, num_models))
        for index, (layer, offset) in enumerate(zip(tokenised, offsets, strict=True)):
            out = packed.values[layer.dtype][models, offset : offset + layer.num_params]
            statistics, is_fit = _pack_layer(layer, tensors, models, out)
            packed.statistics[models, index] = statistics
            packed.is_fit[models] &= is_fit
    return packed


def _pack_layer(
    layer: Layer,
    tensors: Mapping[str, npt.NDArray[Any]],
    models: slice,
    out: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Write one layer of some models to ``out``, ``(num_models, num_params)``."""
    weights = tensors[layer.name][models]
    num_models = len(weights)
    biases = tensors[layer.bias_name][models] if layer.bias_name else None
    measured = [measure_rows(widen(weights.reshape(num_models, -1)))]
    if biases is not None:
        measured.append(measure_rows(widen(biases)))
    is_fit = np.ones(num_models, np.bool_)
    for part in measured:
        # False for NaN too.
        is_fit &= (part.lows >= -LARGEST) & (part.highs <= LARGEST)
    before, rows, after = output_geometry(layer)
    turned = weights.reshape(num_models, before, rows, after).swapaxes(1, 2)
    matrix = out.reshape(num_models, layer.rows, layer.matrix_cols)
    matrix[:, :, : layer.cols].reshape(turned.shape)[...] = turned
    if biases is not None:
        matrix[:, :, -1] = biases
    return combine_rows(measured[0], measured[1] if biases is not None else None), is_fit
