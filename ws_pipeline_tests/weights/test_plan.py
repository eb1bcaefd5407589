"""Layer plans: every byte belongs to one layer, and what is not tokenised says why."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import WeightsError
from ws_pipeline.tokens.shards import pack_path, unpack_path
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import ELEMENT_TYPES
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.packing import plan_checkpoint
from ws_pipeline.weights.plan import LayerPlan, Treatment, plan_layers, tie_layer
from ws_pipeline.weights.records import LAYER_STRUCT, layer_from_record, layer_to_record
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.tiny_models import BUILDERS, build

KINDS = ("weight", "bias", "running_mean", "num_batches_tracked", "embedding", "x", "kernel")


def info(name: str, shape: tuple[int, ...], dtype: str) -> TensorInfo:
    count = math.prod(shape)
    num_bytes = count * ELEMENT_TYPES[dtype].bits // 8
    return TensorInfo(
        name=name, dtype=dtype, shape=shape, start=0, end=num_bytes, num_params=count,
        num_bytes=num_bytes,
    )  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, shape, dtype); plain tuples, for run-time type checks draw random numbers."""
    names = draw(
        st.lists(
            st.tuples(st.sampled_from(("a", "b.0", "b.1", "bn")), st.sampled_from(KINDS)),
            unique=True,
            max_size=12,
        )
    )
    dtypes = st.sampled_from([name for name, kind in ELEMENT_TYPES.items() if kind.bits >= 8])
    shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
    return [(f"{module}.{leaf}", draw(shapes), draw(dtypes)) for module, leaf in names]


@given(tensors(), st.randoms(use_true_random=False))
def test_every_tensor_is_in_one_layer_and_every_byte_is_counted_once(
    drawn: list[tuple[str, tuple[int, ...], str]], random: Any
) -> None:
    given_tensors = [info(*arguments) for arguments in drawn]
    plan = plan_layers(given_tensors, {})
    names = [name for layer in plan.layers for name in (layer.name, layer.bias_name) if name]
    assert sorted(names) == sorted(tensor.name for tensor in given_tensors)
    assert sum(plan.account().values()) == sum(tensor.num_bytes for tensor in given_tensors)
    for layer in plan.layers:
        assert (layer.treatment is Treatment.TOKENISED) == (layer.why == "")
        if layer.treatment is Treatment.TOKENISED:
            assert layer.rows * layer.matrix_cols == layer.num_params > 0
        assert 0.0 <= layer.depth <= 1.0
    shuffled = random.sample(given_tensors, len(given_tensors))
    assert plan_layers(shuffled, {}).layers == plan.layers


@given(tensors())
def test_a_layer_survives_its_record(drawn: list[tuple[str, tuple[int, ...], str]]) -> None:
    for layer in plan_layers([info(*arguments) for arguments in drawn], {}).layers:
        record = json.loads(json.dumps(layer_to_record(layer, None)))
        assert list(record) == [field.name for field in LAYER_STRUCT.fields]
        assert layer_from_record(record) == layer


def test_reasons_of_what_is_not_tokenised() -> None:
    plan = plan_layers(
        [
            info("bn.running_mean", (4,), "F32"),
            info("bn.num_batches_tracked", (), "I64"),
            info("fc.weight", (2, 2), "I8"),
            info("fc.weight_packed", (2, 2), "F4"),
            info("fc2.weight", (0, 2), "F32"),
            info("z.weight", (2, 2), "C64"),
            info("odd.thing", (2, 2, 2), "F32"),
        ],
        {},
    )
    assert {layer.name: layer.why for layer in plan.layers} == {
        "bn.running_mean": "buffer",
        "bn.num_batches_tracked": "integer_tensor",
        "fc.weight": "integer_tensor",
        "fc.weight_packed": "unsupported_dtype",
        "fc2.weight": "empty_tensor",
        "z.weight": "unsupported_dtype",
        "odd.thing": "",
    }


def test_a_norm_layer_is_a_column_of_scales_and_one_of_shifts() -> None:
    plan = plan_layers([info("bn.weight", (5,), "F32"), info("bn.bias", (5,), "F32")], {})
    (layer,) = plan.layers
    assert (layer.rows, layer.cols, layer.matrix_cols, layer.bias_name) == (5, 1, 2, "bn.bias")


def test_a_plan_that_does_not_add_up_is_an_error() -> None:
    plan = plan_layers([info("a", (2,), "F32")], {})
    broken = LayerPlan(layers=plan.layers, roles=plan.roles, data_bytes=9)
    with pytest.raises(WeightsError, match="account for all 9 bytes of the model, they account"):
        broken.account()


def test_tying_moves_bytes_from_tokenised_to_excluded() -> None:
    plan = plan_layers(
        [info("wte.weight", (3, 2), "F32"), info("lm_head.weight", (3, 2), "F32")], {}
    )
    tied = tie_layer(plan, "lm_head.weight", "wte.weight")
    assert tied.account() == {"tokenised": 24, "carried": 0, "excluded": 24}
    assert [layer.name for layer in tied.tokenised] == ["wte.weight"]


@pytest.mark.parametrize("kind", BUILDERS)
def test_real_models_are_accounted_for_to_the_byte_without_an_unknown(
    tmp_path: Path, kind: str
) -> None:
    folder = build(kind, tmp_path / kind)
    checkpoint = Checkpoint.open(folder)
    plan, statistics = plan_checkpoint(checkpoint)
    on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    headers = sum(file.header.header_bytes for file in checkpoint.files)
    assert sum(plan.account().values()) == on_disk - headers
    assert "unknown" not in {str(layer.role) for layer in plan.layers}
    for layer, measured in zip(plan.layers, statistics, strict=True):
        assert (measured is None) == (layer.treatment is not Treatment.TOKENISED)


def test_gpt2_is_read_the_right_way_round(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(build("gpt2", tmp_path))
    plan, _ = plan_checkpoint(checkpoint)
    layers = {layer.name: layer for layer in plan.layers}
    fused = layers["transformer.h.1.attn.c_attn.weight"]
    assert (fused.rows, fused.cols, fused.transposed, fused.block) == (48, 16, True, 1)
    square = layers["transformer.h.0.attn.c_proj.weight"]
    assert square.transposed
    assert [layer.name for layer in plan.layers][-1] == "transformer.ln_f.weight"


def test_copies_of_an_embedding_are_stored_once(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = write_model(
        tmp_path / "m.safetensors",
        {"lm_head.weight": table, "wte.weight": table, "other.weight": table + 1},
    )
    plan, _ = plan_checkpoint(Checkpoint.open(path))
    treatments = {layer.name: (str(layer.treatment), layer.tied_to) for layer in plan.layers}
    assert treatments == {
        "wte.weight": ("tokenised", ""),
        "other.weight": ("tokenised", ""),
        "lm_head.weight": ("excluded", "wte.weight"),
    }


@pytest.mark.parametrize("ties", [True, False])
def test_a_tied_head_with_a_bias_is_stored_once_where_the_config_says_so(
    tmp_path: Path, ties: bool
) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = write_model(
        tmp_path / "model.safetensors",
        {
            "bert.embeddings.word_embeddings.weight": table,
            "cls.predictions.decoder.weight": table,
            "cls.predictions.decoder.bias": table[:, 0],
        },
    )
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": ties}))
    plan, _ = plan_checkpoint(Checkpoint.open(tmp_path))
    head = next(layer for layer in plan.layers if layer.name == "cls.predictions.decoder.weight")
    assert (str(head.treatment), head.bias_name) == (
        ("excluded", "") if ties else ("tokenised", "cls.predictions.decoder.bias")
    )
    assert str(plan.roles["cls.predictions.decoder.bias"].role) == "bias"
    pack_path(path, tmp_path / "tokens")
    unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
