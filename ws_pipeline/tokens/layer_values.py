"""The numbers of token layers, from a shard or straight from a checkpoint. Does I/O.

Both give true weights in float32: of 8- and 16-bit floats exactly, of float64 rounded. Not here:
which numbers make a token (``layout``).
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.tokens.records import TokenLayer
from ws_pipeline.tokens.shard_format import VALUES_PREFIX
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import widen
from ws_pipeline.weights.layers import plan_checkpoint
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.plan import Layer


class ShardValues:
    """Values of a shard, by range reads."""

    def __init__(self, shard: Checkpoint) -> None:
        self._shard = shard

    def read(self, layer: TokenLayer, start: int, count: int) -> npt.NDArray[np.float32]:
        """Return ``count`` true values of the layer from ``start``."""
        stored = self._shard.read_flat(VALUES_PREFIX + layer.dtype, layer.offset + start, count)
        return _to_float32(np.ldexp(widen(stored), layer.scale_exponent))


class CheckpointValues:
    """Values of a checkpoint; the layer that was read last is kept."""

    def __init__(self, checkpoint: Checkpoint, layers: dict[str, Layer]) -> None:
        self._checkpoint = checkpoint
        self._layers = layers
        self._last: tuple[str, npt.NDArray[np.float32]] | None = None

    @classmethod
    def open(cls, path: str | Path) -> tuple["CheckpointValues", list[TokenLayer]]:
        """Open and plan a checkpoint; its values and its token layers."""
        checkpoint = Checkpoint.open(path)
        plan, statistics = plan_checkpoint(checkpoint)
        token_layers = [
            TokenLayer(
                name=layer.name,
                role=str(layer.role),
                block=layer.block,
                depth=layer.depth,
                dtype=layer.dtype,
                offset=0,
                rows=layer.rows,
                cols=layer.matrix_cols,
                scale_exponent=0,
                mean=measured.mean,
                std=measured.std,
            )
            for layer, measured in zip(plan.layers, statistics, strict=True)
            if measured is not None
        ]
        if not token_layers:
            raise WeightsError(
                f"{path} holds no floating-point weights.", reason=Reason.NOTHING_TO_TOKENIZE
            )
        return cls(checkpoint, {layer.name: layer for layer in plan.layers}), token_layers

    def read(self, layer: TokenLayer, start: int, count: int) -> npt.NDArray[np.float32]:
        """Return ``count`` values of the layer's matrix from ``start``."""
        if self._last is None or self._last[0] != layer.name:
            planned = self._layers[layer.name]
            weight = self._checkpoint.read(planned.name)
            bias = self._checkpoint.read_flat(planned.bias_name) if planned.bias_name else None
            matrix = _to_float32(widen(join_matrix(planned, weight, bias)))
            self._last = (layer.name, matrix.reshape(-1))
        return self._last[1][start : start + count]


def _to_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrowed: npt.NDArray[np.float32] = values.astype(np.float32, copy=False)
    return narrowed
