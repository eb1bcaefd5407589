"""Many models of one architecture tokenised at once, from stacked arrays. No I/O.

The plan is made once; statistics, scales and the matrices [W|b] of a few hundred models at a time
are array operations. Values and statistics are those of ``shard_format`` and ``layers`` to the bit.
Not here: files (``shards``), one large model (``layer_blocks``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights.dtypes import numpy_dtype, widen
from ws_pipeline.weights.matrix import output_geometry
from ws_pipeline.weights.normalization import is_scaling_exact, scale_layer
from ws_pipeline.weights.plan import Layer, Treatment
from ws_pipeline.weights.statistics import STATISTICS_FIELDS, combine_rows, measure_rows

MODELS_AT_ONCE = 256
"""Enough to make the calls cheap, few enough for a cache: 2.5 MB of a CNN of 2,464 parameters."""

_MIN, _MAX, _STD = (STATISTICS_FIELDS.index(name) for name in ("w_min", "w_max", "std"))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedPopulation:
    """The tokenised layers of many models.

    Attributes:
        values: Per dtype the scaled values in token order, ``(num_models, num_values)``; a row is
            the ``values.<dtype>`` tensor of that model's shard.
        exponents: Scale exponents, ``(num_models, num_layers)``, layers as in the plan.
        statistics: ``(num_models, num_layers, len(STATISTICS_FIELDS))``; NaN without a bias.
    """

    values: Mapping[str, npt.NDArray[Any]]
    exponents: npt.NDArray[np.int32]
    statistics: npt.NDArray[np.float64]


def pack_population(
    layers: Sequence[Layer], tensors: Mapping[str, npt.NDArray[Any]]
) -> PackedPopulation:
    """Measure, scale and lay out the tokenised layers of a population.

    Args:
        layers: The plan that all its models share.
        tensors: By name the tensors of all models, ``(num_models, *shape)``.

    Raises:
        WeightsError: ``non_finite_weights`` if a model holds NaN or infinity.
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
        exponents=np.zeros((num_models, len(tokenised)), np.int32),
        statistics=np.empty((num_models, len(tokenised), len(STATISTICS_FIELDS))),
    )
    for start in range(0, num_models, MODELS_AT_ONCE):
        models = slice(start, min(start + MODELS_AT_ONCE, num_models))
        for index, (layer, offset) in enumerate(zip(tokenised, offsets, strict=True)):
            out = packed.values[layer.dtype][models, offset : offset + layer.num_params]
            statistics, exponents = _pack_layer(layer, tensors, models, out)
            packed.statistics[models, index] = statistics
            packed.exponents[models, index] = exponents
    return packed


def _pack_layer(
    layer: Layer,
    tensors: Mapping[str, npt.NDArray[Any]],
    models: slice,
    out: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Write one layer of some models to ``out``, ``(num_models, num_params)``."""
    weights = tensors[layer.name][models]
    num_models = len(weights)
    biases = tensors[layer.bias_name][models] if layer.bias_name else None
    measured = measure_rows(widen(weights.reshape(num_models, -1)))
    measured_biases = None if biases is None else measure_rows(widen(biases))
    statistics = combine_rows(measured, measured_biases)
    largest = np.maximum(np.abs(measured.lows), np.abs(measured.highs))
    if measured_biases is not None:
        for ends in (measured_biases.lows, measured_biases.highs):
            largest = np.maximum(largest, np.abs(ends))
    stds = statistics[:, _STD]
    if not np.isfinite(largest).all() or not np.isfinite(stds).all():
        raise WeightsError(
            f"Weights must be finite; layer {layer.name} holds NaN or infinity in a model.",
            reason=Reason.NON_FINITE_WEIGHTS,
        )
    exponents = np.rint(np.log2(np.where(stds > 0.0, stds, 1.0))).astype(np.int32)
    before, rows, after = output_geometry(layer)
    turned = weights.reshape(num_models, before, rows, after).swapaxes(1, 2)
    matrix = out.reshape(num_models, layer.rows, layer.matrix_cols)
    matrix[:, :, : layer.cols].reshape(turned.shape)[...] = turned
    if biases is not None:
        matrix[:, :, -1] = biases
    _scale_rows(out, exponents, largest)
    return statistics, exponents


def _scale_rows(
    rows: npt.NDArray[Any], exponents: npt.NDArray[np.int32], largest: npt.NDArray[np.float64]
) -> None:
    """Multiply each row by two to minus its exponent, or set the exponent to 0 where inexact."""
    for row in np.flatnonzero(~is_scaling_exact(rows.dtype, exponents, largest)):
        exponents[row] = scale_layer(rows[row], int(exponents[row]))[1]
    with np.errstate(under="ignore"):
        if rows.dtype.itemsize >= 4:
            np.ldexp(rows, -exponents[:, None], out=rows)
        else:
            rows[...] = np.ldexp(widen(rows), -exponents[:, None]).astype(rows.dtype)
