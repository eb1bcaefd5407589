"""Parts of a layer: together they are its weight, and joined its matrix, however it is cut."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from ws_pipeline.weights import layer_blocks, values
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.layer_blocks import Buffers, LayerBlocks
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.plan import Layer, plan_layers
from ws_pipeline_tests.weights.safetensors_bytes import write_model

SHAPES = {
    "fc.weight": (70, 33),
    "conv.weight": (20, 3, 5, 5),
    "h.0.mlp.c_fc.weight": (37, 148),
    "up_conv_transpose.weight": (12, 21, 3, 3),
    "norm.weight": (64,),
    "scale": (),
}
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]


def open_layers(folder: Path, dtype: Any, *, bias: bool) -> tuple[Checkpoint, list[Layer]]:
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in SHAPES.items():
        tensors[name] = (0.1 * rng.standard_normal(shape)).astype(dtype)
        if bias and shape:
            rows = shape[1] if "c_fc" in name or "transpose" in name else shape[0]
            tensors[name.replace("weight", "bias")] = rng.standard_normal(rows).astype(dtype)
    checkpoint = Checkpoint.open(write_model(folder / "m.safetensors", tensors))
    config = {"model_type": "gpt2"}
    return checkpoint, list(plan_layers(list(checkpoint.tensors.values()), config).tokenised)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_bytes", [1, 700, 2**20])
def test_parts_are_the_weight_once_and_make_its_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, bias: bool, block_bytes: int
) -> None:
    monkeypatch.setattr(layer_blocks, "SLAB_BYTES", 5 * block_bytes)
    monkeypatch.setattr(layer_blocks, "STRIPE_BYTES", block_bytes)
    monkeypatch.setattr(layer_blocks, "CHUNK_BYTES", block_bytes)
    monkeypatch.setattr(layer_blocks, "MIN_STRIPE_ROWS", 2)
    monkeypatch.setattr(values, "CHUNK_BYTES", max(8, block_bytes))
    checkpoint, layers = open_layers(tmp_path, dtype, bias=bias)
    assert any(layer.transposed for layer in layers)
    buffers = Buffers()
    for layer in layers:
        blocks = LayerBlocks(checkpoint, layer, buffers)
        seen, joined = [], []
        for row, part in blocks.parts():
            assert (part.dtype, part.ndim) == (dtype, 1)
            seen.append(part.copy())
            joined.append(blocks.join(row, part).tobytes())
        assert b"".join(joined) == whole_matrix(checkpoint, layer).tobytes(), layer.name
        bits = f"u{np.dtype(dtype).itemsize}"
        parts = np.sort(np.concatenate(seen).view(bits))
        np.testing.assert_array_equal(parts, np.sort(checkpoint.read_flat(layer.name).view(bits)))
        assert len(joined) == 1 or block_bytes < 1000


def whole_matrix(checkpoint: Checkpoint, layer: Layer) -> npt.NDArray[Any]:
    bias = checkpoint.read_flat(layer.bias_name) if layer.bias_name else None
    return join_matrix(layer, checkpoint.read(layer.name), bias)
