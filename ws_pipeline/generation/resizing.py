"""Weights of one width and depth in another: layers matched by name and depth, units resampled.

A layer takes its weights from the layer of the source that is called alike (numbers aside), has its
role and lies closest to its relative depth. A wider layer repeats units and shares out their
outgoing weights, so that a network that only got wider computes what it did
(Net2WiderNet, https://arxiv.org/abs/1511.05641, section 2.2); a narrower one keeps every so many.
A deeper network repeats layers, which does not keep its function. Copies are told apart by the
noise of what is drawn from them. No I/O.
"""

import re

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.generation.template import Template, Weights
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.plan import Layer
from ws_pipeline.weights.role_rules import Role
from ws_pipeline.weights.roles import CONVOLUTIONS, output_axis

_SHARED_OUT = CONVOLUTIONS | {Role.LINEAR, Role.FUSED_QKV}
"""Roles whose inputs are summed: of repeated inputs each has a part of the weight."""


def resize_weights(source: Template, weights: Weights, target: Template) -> Weights:
    """Return weights of the target's shape made of the source's.

    Raises:
        WeightsError: ``conflict``, a layer of the target has no counterpart.
    """
    matrices = []
    for index, layer in enumerate(target.plan.tokenised):
        match = _find_match(source, layer)
        bias = weights[match.bias_name] if match.bias_name else None
        if layer.bias_name and bias is None:
            bias = np.zeros(match.rows, dtype=weights[match.name].dtype)
        tensor = np.asarray(weights[match.name], dtype=np.float64)
        inner = _inner_size(source, target, match, layer, index)
        tensor = _resize_tensor(tensor, match, layer, inner)
        if layer.bias_name and bias is not None:
            bias = bias[_sources(len(bias), layer.rows, 1)]
        matrices.append(join_matrix(layer, tensor, bias if layer.bias_name else None))
    return target.to_weights(matrices)


def _find_match(source: Template, layer: Layer) -> Layer:
    alike = [
        other
        for other in source.plan.tokenised
        if other.role is layer.role
        and _stem(other.name) == _stem(layer.name)
        and len(other.shape) == len(layer.shape)
    ]
    if not alike:
        raise WeightsError(
            f"Every layer needs one of the same role and name in the anchors; {layer.name} has "
            "none. Take anchors of the same architecture.",
            reason=Reason.CONFLICT,
        )
    # The one of the same name wins a tie: a head stays a head.
    return min(alike, key=lambda other: (abs(other.depth - layer.depth), other.name != layer.name))


def _stem(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _inner_size(source: Template, target: Template, match: Layer, layer: Layer, index: int) -> int:
    """Return the consecutive inputs that belong to one unit of the layer before.

    A dense layer behind a convolution has one input for every pixel of every channel.
    """
    if index == 0 or match.index == 0 or layer.role is not Role.LINEAR:
        return 1
    before = next((o for o in source.plan.tokenised[::-1] if _is_conv_before(o, match)), None)
    after = next((o for o in target.plan.tokenised[::-1] if _is_conv_before(o, layer)), None)
    if before is None or after is None or match.cols % before.rows or layer.cols % after.rows:
        return 1
    inner = match.cols // before.rows
    return inner if inner == layer.cols // after.rows else 1


def _is_conv_before(other: Layer, layer: Layer) -> bool:
    return other.index < layer.index and other.role in CONVOLUTIONS


def _resize_tensor(
    tensor: npt.NDArray[np.float64], match: Layer, layer: Layer, inner: int
) -> npt.NDArray[np.float64]:
    output = _output_axis(layer)
    for axis, (old, new) in enumerate(zip(match.shape, layer.shape, strict=True)):
        if old == new:
            continue
        if axis == output:
            # Queries, keys and values lie behind one another.
            num_runs = 3 if layer.role is Role.FUSED_QKV else 1
            run = _sources(old // num_runs, new // num_runs, 1)
            chosen = np.concatenate([run + part * (old // num_runs) for part in range(num_runs)])
        else:
            chosen = _sources(old, new, inner)
        tensor = np.take(tensor, chosen, axis=axis)
        if axis != output and layer.role in _SHARED_OUT:
            counts = np.bincount(chosen, minlength=old)[chosen]
            parts = 1.0 / counts if new > old else np.full(new, old / new)
            tensor = tensor * parts.reshape([-1 if a == axis else 1 for a in range(tensor.ndim)])
    return tensor


def _output_axis(layer: Layer) -> int:
    return output_axis(layer.role, len(layer.shape), transposed=layer.transposed)


def _sources(old: int, new: int, inner: int) -> npt.NDArray[np.intp]:
    """Return where each of ``new`` units comes from among ``old``, in runs of ``inner``."""
    units = np.arange(new // inner) * (old // inner) // (new // inner)
    return np.asarray((units[:, None] * inner + np.arange(inner)).reshape(-1), dtype=np.intp)
