"""What a generated model has to be: the layers of a checkpoint, and where each tensor comes from.

Turns weights by name into token sequences, and the matrices that a backbone decoded back into
weights by name: every tensor of the checkpoint, in its shape and dtype. A tensor that was given
nowhere is an error; one that cannot be generated (running statistics, counters, buffers) is copied
and named. Reads the checkpoint when it is opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.generation.codes import Matrices
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.records import join_float32_layers
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import numpy_dtype, widen
from ws_pipeline.weights.matrix import join_matrix, split_matrix
from ws_pipeline.weights.packing import plan_checkpoint
from ws_pipeline.weights.plan import Layer, LayerPlan, Treatment

Weights = Mapping[str, npt.NDArray[Any]]
"""A model's tensors by their published names."""


class ArrayValues:
    """Weights that lie in memory as one float32 run; see ``tokens.layer_values.ModelValues``."""

    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        self._values = values

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:  # noqa: ARG002 - F32
        """Fill ``out`` with values from the ``start``-th on."""
        target = np.frombuffer(out, dtype=np.float32)
        target[:] = self._values[start : start + len(target)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The shape of a model, and the tensors that are copied into every generated one.

    Attributes:
        plan: Of the checkpoint; what it tokenises is generated.
        carried: Tensors that are not generated.
        config: Its config.json.
    """

    plan: LayerPlan
    carried: Weights
    config: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> tuple["Template", dict[str, npt.NDArray[Any]]]:
        """Open a checkpoint: its template, and its own weights.

        Raises:
            WeightsError: ``nothing_to_tokenize``, ``quantized`` or ``non_finite_weights``.
        """
        checkpoint = Checkpoint.open(path)
        plan, _ = plan_checkpoint(checkpoint)
        if not plan.tokenised:
            raise WeightsError(
                f"{path} holds no floating-point weights.", reason=Reason.NOTHING_TO_TOKENIZE
            )
        weights = {name: checkpoint.read(name) for name in checkpoint.tensors}
        carried = {
            name: weights[name]
            for layer in plan.layers
            if layer.treatment is Treatment.CARRIED
            for name in _tensor_names(layer)
        }
        return cls(plan=plan, carried=carried, config=checkpoint.config), weights

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight tensor that is generated, by layer."""
        return {layer.name: layer.shape for layer in self.plan.tokenised}

    def require_same_shape(self, other: "Template", name: str) -> None:
        """Refuse a model that is not of this shape.

        Raises:
            WeightsError: ``conflict``, with the first layer that differs.
        """
        mine, theirs = self.shapes, other.shapes
        if mine == theirs:
            return
        differing = sorted(
            layer for layer in mine.keys() | theirs.keys() if mine.get(layer) != theirs.get(layer)
        )
        layer = differing[0]
        raise WeightsError(
            f"All anchors must have one shape; {name} has {layer} as {theirs.get(layer)}, the "
            f"first anchor as {mine.get(layer)}. Give checkpoints of one architecture and size.",
            reason=Reason.CONFLICT,
        )

    def to_matrices(self, weights: Weights) -> Matrices:
        """Return the matrix [W|b] of every generated layer."""
        return [
            widen(
                join_matrix(
                    layer,
                    weights[layer.name],
                    weights[layer.bias_name] if layer.bias_name else None,
                )
            ).astype(np.float64)
            for layer in self.plan.tokenised
        ]

    def to_tokens(self, weights: Weights, layout: TokenLayout) -> ModelTokens:
        """Return weights of this shape as a token sequence with their own layer scales."""
        matrices = self.to_matrices(weights)
        moments = [(float(matrix.mean()), float(matrix.std())) for matrix in matrices]
        layers = join_float32_layers(self.plan.tokenised, moments)
        flat = np.concatenate([matrix.reshape(-1) for matrix in matrices]).astype(np.float32)
        return ModelTokens(layers, ArrayValues(flat), layout)

    def to_weights(self, matrices: Sequence[npt.NDArray[np.float64]]) -> dict[str, Any]:
        """Return every tensor of a model from the matrices of its generated layers.

        Raises:
            WeightsError: ``conflict``, a tensor would be left without a value, or of another shape;
                ``non_finite_weights``, a value is beyond what the layer's dtype holds.
        """
        layers = self.plan.tokenised
        if len(matrices) != len(layers):
            raise WeightsError(
                f"Every layer must be given: the model has {len(layers)}, {len(matrices)} came.",
                reason=Reason.CONFLICT,
            )
        weights = dict(self.carried)
        for layer, matrix in zip(layers, matrices, strict=True):
            weights |= _cut_layer(layer, matrix)
        for layer in self.plan.layers:
            if layer.treatment is Treatment.EXCLUDED:
                weights[layer.name] = weights[layer.tied_to].copy()
        missing = sorted(self.plan.roles.keys() - weights.keys())
        if missing:
            raise WeightsError(
                f"Every tensor must be given, {len(missing)} were not, the first is {missing[0]}.",
                reason=Reason.CONFLICT,
            )
        return weights


def _cut_layer(layer: Layer, matrix: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    if matrix.shape != (layer.rows, layer.matrix_cols):
        raise WeightsError(
            f"{layer.name} must be a matrix of {(layer.rows, layer.matrix_cols)}, "
            f"got {matrix.shape}.",
            reason=Reason.CONFLICT,
        )
    with np.errstate(over="ignore"):
        narrow = matrix.astype(numpy_dtype(layer.dtype))
    if not np.isfinite(widen(narrow)).all():
        raise WeightsError(
            f"Generated weights must be finite; {layer.name} has some beyond {layer.dtype}. Draw "
            "with a smaller bandwidth.",
            reason=Reason.NON_FINITE_WEIGHTS,
        )
    weight, bias = split_matrix(layer, narrow)
    return {layer.name: weight} if bias is None else {layer.name: weight, layer.bias_name: bias}


def _tensor_names(layer: Layer) -> list[str]:
    return [layer.name, layer.bias_name] if layer.bias_name else [layer.name]
