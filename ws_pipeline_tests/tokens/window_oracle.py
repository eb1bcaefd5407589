"""Windows the slow way: cut every layer of a checkpoint, pad, stack. Not a test module.

What ``tokens`` and ``backbone.expansion`` give together must equal this to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.tokens.layout import TokenLayout, split_tokens
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import widen
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.normalization import log_std
from ws_pipeline.weights.plan import plan_layers

NAMES = ("tokens", "mask", "positions", "scale")


@dataclass(frozen=True, kw_only=True)
class WholeModel:
    """All tokens of a model, each array ``(tokens, ...)``."""

    tokens: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    positions: npt.NDArray[np.int64]
    scale: npt.NDArray[np.float32]


def cut_model(path: Path, layers: Sequence[dict[str, Any]], layout: TokenLayout) -> WholeModel:
    """Cut a checkpoint; ``layers`` are its token layers' records, for mean and std."""
    checkpoint = Checkpoint.open(path)
    plan = plan_layers(list(checkpoint.tensors.values()), {})
    tokens, mask, places, scale = [], [], [], []
    for index, layer in enumerate(plan.tokenised):
        bias = checkpoint.read(layer.bias_name) if layer.bias_name else None
        values = join_matrix(layer, checkpoint.read(layer.name), bias).reshape(-1)
        shape = (layer.rows, layer.matrix_cols)
        with np.errstate(over="ignore"):
            tokens.append(split_tokens(layout, widen(values).astype(np.float32), *shape))
        mask.append(split_tokens(layout, np.ones(len(values), dtype=np.bool_), *shape))
        count = len(tokens[-1])
        places.append(np.stack([np.full(count, index), np.arange(count)], axis=1))
        record = layers[index]
        scale.append(np.full((count, 2), (record["mean"], log_std(record["std"])), np.float32))
    joined = np.concatenate(places).astype(np.int64)
    positions = np.concatenate([np.arange(len(joined))[:, None], joined], axis=1)
    return WholeModel(
        tokens=np.concatenate(tokens),
        mask=np.concatenate(mask),
        positions=positions,
        scale=np.concatenate(scale),
    )


def stack(
    models: Sequence[WholeModel], spans: Sequence[tuple[int, int]], window_size: int
) -> dict[str, npt.NDArray[Any]]:
    """Windows [start, stop) of the models, zero where padded."""
    batch = {}
    for name in NAMES:
        parts = []
        for model, (start, stop) in zip(models, spans, strict=True):
            part = getattr(model, name)[start:stop]
            empty = np.zeros((window_size - len(part), *part.shape[1:]), part.dtype)
            parts.append(np.concatenate([part, empty]))
        batch[name] = np.stack(parts)
    return batch


def assert_same_bits(windows: Any, expected: dict[str, npt.NDArray[Any]]) -> None:
    """Compare tensors of a ``Windows`` with the oracle's arrays: dtype, shape, every bit."""
    for name in NAMES:
        given = getattr(windows, name).cpu().numpy()
        assert (given.dtype, given.shape) == (expected[name].dtype, expected[name].shape), name
        assert given.tobytes() == expected[name].tobytes(), name
