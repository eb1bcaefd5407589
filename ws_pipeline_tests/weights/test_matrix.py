"""Matrices: [W|b] in (output, input) order, and exactly back."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.matrix import join_matrix, split_matrix
from ws_pipeline.weights.plan import Layer, plan_layers


def plan_one(name: str, shape: tuple[int, ...], bias: tuple[str, int] | None = None) -> Layer:
    count = math.prod(shape)
    tensors = [
        TensorInfo(name=name, dtype="F32", shape=shape, start=0, end=4 * count, num_params=count,
                   num_bytes=4 * count)
    ]  # fmt: skip
    if bias is not None:
        tensors.append(
            TensorInfo(name=bias[0], dtype="F32", shape=(bias[1],), start=0, end=4 * bias[1],
                       num_params=bias[1], num_bytes=4 * bias[1])
        )  # fmt: skip
    return plan_layers(tensors, {}).layers[0]


LEAVES = ["weight", "kernel", "c_fc.weight", "deconv.weight", "running_mean", "cls_token", "x"]


@given(
    st.sampled_from(LEAVES),
    st.lists(st.integers(1, 4), max_size=5).map(tuple),
    st.data(),
    st.sampled_from([np.float32, np.float64, np.float16, ml_dtypes.bfloat16]),
)
def test_splitting_undoes_joining_bit_by_bit(
    leaf: str, shape: tuple[int, ...], data: st.DataObject, dtype: type
) -> None:
    bias_name = f"m.{leaf}".replace("weight", "bias").replace("kernel", "bias")
    sizes = sorted({shape[0], shape[1], shape[-1]}) if len(shape) > 1 else sorted(set(shape))
    bias = None
    if sizes and bias_name != f"m.{leaf}" and data.draw(st.booleans()):
        bias = (bias_name, data.draw(st.sampled_from(sizes)))
    layer = plan_one(f"m.{leaf}", shape, bias)
    generator = np.random.default_rng(0)
    weight = generator.standard_normal(shape).astype(dtype)
    column = generator.standard_normal(layer.rows).astype(dtype) if layer.bias_name else None
    matrix = join_matrix(layer, weight, column)
    assert matrix.shape == (layer.rows, layer.matrix_cols)
    again, again_bias = split_matrix(layer, matrix)
    assert again.shape == weight.shape
    assert again.tobytes() == weight.tobytes()
    assert (again_bias is None) == (column is None)
    if column is not None and again_bias is not None:
        assert again_bias.tobytes() == column.tobytes()


def test_gpt2s_conv1d_is_turned_into_output_times_input() -> None:
    layer = plan_one("h.0.mlp.c_fc.weight", (2, 3), ("h.0.mlp.c_fc.bias", 3))
    weight = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    matrix = join_matrix(layer, weight, np.array([7, 8, 9], dtype=np.float32))
    np.testing.assert_array_equal(matrix, [[1, 4, 7], [2, 5, 8], [3, 6, 9]])


@pytest.mark.parametrize("name", ["up.weight", "deconv.weight"])
def test_a_transposed_convolution_has_its_outputs_in_rows(name: str) -> None:
    layer = plan_one(name, (2, 3, 2), (name.replace("weight", "bias"), 3))
    weight = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    matrix = join_matrix(layer, weight, np.zeros(3, np.float32))
    np.testing.assert_array_equal(matrix[0], [0, 1, 6, 7, 0])
