"""Blocks of a layer: together they are its scaled matrix, however it is stored and cut."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from ws_pipeline.tokens import layer_blocks
from ws_pipeline.tokens.layer_blocks import find_exact_exponent, scaled_blocks
from ws_pipeline.weights import values
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.normalization import scale_layer
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
def test_the_blocks_of_a_layer_make_its_scaled_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, bias: bool, block_bytes: int
) -> None:
    monkeypatch.setattr(layer_blocks, "SLAB_BYTES", 5 * block_bytes)
    monkeypatch.setattr(layer_blocks, "STRIPE_BYTES", block_bytes)
    monkeypatch.setattr(layer_blocks, "CHUNK_BYTES", block_bytes)
    monkeypatch.setattr(layer_blocks, "MIN_STRIPE_ROWS", 2)
    monkeypatch.setattr(values, "CHUNK_BYTES", max(8, block_bytes))
    checkpoint, layers = open_layers(tmp_path, dtype, bias=bias)
    assert any(layer.transposed for layer in layers)
    for layer in layers:
        matrix = whole_matrix(checkpoint, layer)
        scaled, exponent = scale_layer(matrix, -3)
        blocks = [block.tobytes() for block in scaled_blocks(checkpoint, layer, exponent)]
        assert b"".join(blocks) == scaled.tobytes(), layer.name
        assert len(blocks) == 1 or block_bytes < 1000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-200, -14, -6, 0, 3, 9, 140])
def test_the_exponent_is_exact_or_zero_as_for_the_whole_matrix(
    tmp_path: Path, dtype: Any, exponent: int
) -> None:
    checkpoint, layers = open_layers(tmp_path, dtype, bias=True)
    for layer in layers:
        weight = np.asarray(checkpoint.read_flat(layer.name)).astype(np.float64)
        found = find_exact_exponent(
            checkpoint, layer, exponent, float(weight.min()), float(weight.max())
        )
        scaled, expected = scale_layer(whole_matrix(checkpoint, layer), exponent)
        assert found == expected
        blocks = [block.tobytes() for block in scaled_blocks(checkpoint, layer, found)]
        assert b"".join(blocks) == scaled.tobytes()


def test_a_bias_that_would_overflow_keeps_its_layer_as_it_is(tmp_path: Path) -> None:
    tensors = {
        "fc.weight": np.full((4, 4), 2.0**-10, np.float16),
        "fc.bias": np.array([1, 2, -60000, 3], np.float16),
    }
    checkpoint = Checkpoint.open(write_model(tmp_path / "m.safetensors", tensors))
    (layer,) = plan_layers(list(checkpoint.tensors.values()), {}).tokenised
    assert find_exact_exponent(checkpoint, layer, -10, 2.0**-10, 2.0**-10) == 0


def whole_matrix(checkpoint: Checkpoint, layer: Layer) -> npt.NDArray[Any]:
    bias = checkpoint.read_flat(layer.bias_name) if layer.bias_name else None
    return join_matrix(layer, checkpoint.read(layer.name), bias)
