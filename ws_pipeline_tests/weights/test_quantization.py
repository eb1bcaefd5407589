"""Quantised weights: every format is known by its tensors, carried whole, and comes back."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import RefusedError, WeightsError
from ws_pipeline.tokens.shards import pack_path, unpack_path
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.packing import plan_checkpoint
from ws_pipeline.weights.plan import Treatment, plan_layers
from ws_pipeline.weights.quantization import FORMATS, find_quantized, packed_names
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.test_plan import info

Arrays = dict[str, npt.NDArray[Any]]

BF16, F8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn
NUM_OUTPUTS, NUM_INPUTS, GROUP = 32, 64, 32
PLACE = "model.layers.0.mlp.down_proj"


def integers(dtype: type, *shape: int) -> npt.NDArray[Any]:
    limits = np.iinfo(dtype)
    return np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def floats(dtype: type, *shape: int) -> npt.NDArray[Any]:
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def bitsandbytes(kind: str) -> Arrays:
    state = json.dumps({"quant_type": kind, "blocksize": 64, "dtype": "bfloat16",
                        "shape": [NUM_OUTPUTS, NUM_INPUTS], "nested_blocksize": 256,
                        "nested_dtype": "float32", "nested_offset": 0.04}).encode()  # fmt: skip
    return {
        "weight": integers(np.uint8, NUM_OUTPUTS * NUM_INPUTS // 2, 1),
        "weight.absmax": integers(np.uint8, NUM_OUTPUTS * NUM_INPUTS // 64),
        "weight.quant_map": floats(np.float32, 16),
        "weight.nested_absmax": floats(np.float32, 1),
        "weight.nested_quant_map": floats(np.float32, 256),
        f"weight.quant_state.bitsandbytes__{kind}": np.frombuffer(state, np.uint8),
    }


# As the writers lay them out: 4 bits, so eight numbers to a 32-bit word and two to a byte.
LAYOUTS: dict[str, tuple[str, Arrays]] = {
    "gptq": ("gptq", {
        "qweight": integers(np.int32, NUM_INPUTS // 8, NUM_OUTPUTS),
        "qzeros": integers(np.int32, NUM_INPUTS // GROUP, NUM_OUTPUTS // 8),
        "scales": floats(np.float16, NUM_INPUTS // GROUP, NUM_OUTPUTS),
        "g_idx": np.arange(NUM_INPUTS, dtype=np.int32) // GROUP,
    }),
    "awq": ("awq", {
        "qweight": integers(np.int32, NUM_INPUTS, NUM_OUTPUTS // 8),
        "qzeros": integers(np.int32, NUM_INPUTS // GROUP, NUM_OUTPUTS // 8),
        "scales": floats(np.float16, NUM_INPUTS // GROUP, NUM_OUTPUTS),
    }),
    "nf4": ("bitsandbytes_4bit", bitsandbytes("nf4")),
    "fp4": ("bitsandbytes_4bit", bitsandbytes("fp4")),
    "llm.int8": ("bitsandbytes_8bit", {
        "weight": integers(np.int8, NUM_OUTPUTS, NUM_INPUTS),
        "SCB": floats(np.float32, NUM_OUTPUTS),
        "weight_format": np.array(0, np.uint8),
    }),
    "pack-quantized": ("compressed_tensors", {
        "weight_packed": integers(np.int32, NUM_OUTPUTS, NUM_INPUTS // 8),
        "weight_scale": floats(BF16, NUM_OUTPUTS, NUM_INPUTS // GROUP),
        "weight_shape": np.array([NUM_OUTPUTS, NUM_INPUTS], np.int64),
    }),
    "int-quantized": ("int8", {
        "weight": integers(np.int8, NUM_OUTPUTS, NUM_INPUTS),
        "weight_scale": floats(BF16, NUM_OUTPUTS, 1),
    }),
    "nvfp4": ("nvfp4", {
        "weight": integers(np.uint8, NUM_OUTPUTS, NUM_INPUTS // 2),
        "weight_scale": floats(F8, NUM_OUTPUTS, NUM_INPUTS // 16),
        "weight_scale_2": np.array(0.1, np.float32),
        "input_scale": np.array(0.1, np.float32),
    }),
    "mlx": ("mlx", {
        "weight": integers(np.uint32, NUM_OUTPUTS, NUM_INPUTS // 8),
        "scales": floats(np.float16, NUM_OUTPUTS, NUM_INPUTS // GROUP),
        "biases": floats(np.float16, NUM_OUTPUTS, NUM_INPUTS // GROUP),
    }),
    "hqq": ("hqq", {
        "W_q": integers(np.uint8, NUM_OUTPUTS // 2, NUM_INPUTS),
        "scale": floats(np.float16, NUM_OUTPUTS, 1),
        "zero": floats(np.float16, NUM_OUTPUTS, 1),
    }),
}  # fmt: skip


def place(arrays: Arrays) -> Arrays:
    """The tensors of a layer in a model that has a norm and a bias as well."""
    return {
        "model.norm.weight": floats(BF16, NUM_INPUTS),
        f"{PLACE}.bias": floats(BF16, NUM_OUTPUTS),
        **{f"{PLACE}.{end}": values for end, values in arrays.items()},
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_weight_is_known_carried_refused_and_restored(tmp_path: Path, layout: str) -> None:
    method, arrays = LAYOUTS[layout]
    path = write_model(tmp_path / "m.safetensors", place(arrays))
    checkpoint = Checkpoint.open(path)
    plan = plan_layers(list(checkpoint.tensors.values()), {})
    (weight,) = plan.quantized
    assert (weight.method, weight.is_packed) == (method, True)
    assert set(weight.parts) == {f"{PLACE}.{end}" for end in arrays}
    for layer in plan.layers:
        is_part = layer.name in weight.parts
        assert (layer.treatment is Treatment.CARRIED) == is_part
        assert (layer.why, str(layer.role)) == ("quantized", "quantization") or not is_part
    with pytest.raises(WeightsError, match=f"packed by {method}; take the model that was"):
        plan.require_unpacked()
    with pytest.raises(WeightsError, match="packed by"):
        plan_checkpoint(checkpoint)
    pack_path(path, tmp_path / "tokens")
    unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_packed_experts_are_known(tmp_path: Path) -> None:
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    arrays = {
        f"{experts}_blocks": integers(np.uint8, 2, 48, 1, 16),
        f"{experts}_scales": integers(np.uint8, 2, 48, 1),
        f"{experts}_bias": floats(BF16, 2, 48),
    }
    checkpoint = Checkpoint.open(write_model(tmp_path / "m.safetensors", arrays))
    (weight,) = find_quantized(checkpoint.tensors.values())
    assert weight.method == "mxfp4"
    assert packed_names([weight]) == {f"{experts}_blocks", f"{experts}_scales"}


@pytest.mark.parametrize("dtype", [F8, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize(
    ("end", "scales"),
    [
        ("weight_scale_inv", floats(np.float32, 2, 2)),  # DeepSeek: blocks of 128 x 128
        ("weight_scale", floats(BF16, 256, 1)),  # compressed-tensors: one per output
        ("weight_scale", floats(np.float32, 1)),  # one for all
    ],
)
def test_8_bit_floats_are_weights_and_keep_their_scales(
    tmp_path: Path, dtype: type, end: str, scales: npt.NDArray[Any]
) -> None:
    arrays = {f"{PLACE}.weight": floats(dtype, 256, 256), f"{PLACE}.{end}": scales}
    path = write_model(tmp_path / "m.safetensors", arrays)
    plan = plan_layers(list(Checkpoint.open(path).tensors.values()), {})
    plan.require_unpacked()
    assert [(weight.method, weight.is_packed) for weight in plan.quantized] == [("fp8", False)]
    layers = {layer.name: layer for layer in plan.tokenised}
    assert str(layers[f"{PLACE}.weight"].role) == "linear"
    assert str(layers[f"{PLACE}.{end}"].role) == "quantization"
    pack_path(path, tmp_path / "tokens")
    unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_plain_integers_and_a_plain_scale_are_no_known_format(tmp_path: Path) -> None:
    arrays = {
        "lstm.weight_int8": integers(np.int8, 8, 8),
        "lstm.scales": floats(np.float32, 8),
        "norm.weight_scale": floats(np.float32, 8),
        "fc.weight": floats(np.float32, 8, 8),
        "fc.scales": floats(np.float32, 8),
    }
    checkpoint = Checkpoint.open(write_model(tmp_path / "m.safetensors", arrays))
    assert find_quantized(checkpoint.tensors.values()) == []


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors"])
def test_a_gguf_file_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(64))
    with pytest.raises(RefusedError, match=r"is a GGUF file, .*fetch the model it was") as caught:
        Checkpoint.open(path)
    assert caught.value.reason == "not_safetensors"


def test_a_file_of_another_kind_says_what_to_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(RefusedError, match=r"must be a \.safetensors file; name one, or a folder"):
        Checkpoint.open(path)


ENDS = sorted({end for form in FORMATS for end in (form.marker, form.main, *form.parts)} | {""})


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(("a", "b.weight")), st.sampled_from(ENDS)).map("".join),
        st.sampled_from([np.int8, np.uint8, np.int32, np.float32, F8]),
    )
)
def test_any_mixture_of_parts_gives_weights_that_share_none(drawn: dict[str, type]) -> None:
    names = {np.int8: "I8", np.uint8: "U8", np.int32: "I32", np.float32: "F32", F8: "F8_E4M3"}
    tensors = [info(name, (2, 2), names[dtype]) for name, dtype in drawn.items() if name]
    weights = find_quantized(tensors)
    parts = [part for weight in weights for part in weight.parts]
    assert len(parts) == len(set(parts))
    assert set(parts) <= drawn.keys()
    plan = plan_layers(tensors, {})
    packed = packed_names(plan.quantized)
    assert {layer.name for layer in plan.layers if layer.why == "quantized"} == packed
