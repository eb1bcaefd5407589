"""Hostile input beyond the header: whatever parses is planned, accounted for and inspected.

The corpus's bytes and random headers go through everything that ``inspect`` and ``pack`` do. What
comes out is a plan that adds up to the byte, or a refusal with a reason; never another error.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_pipeline.cli.inspection_tables import render_inspection
from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.tokens.shards import pack_path, unpack_path
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import ELEMENT_TYPES
from ws_pipeline.weights.header import parse_header
from ws_pipeline.weights.inspection import inspect_path
from ws_pipeline.weights.plan import LayerPlan, plan_layers
from ws_pipeline.weights.role_rules import BIAS_PARTNERS, ROLE_RULES
from ws_pipeline_tests.abuse.headers import LITTLE, wrap

MAX_TENSORS = 6

# Words of the rules themselves, so that random names meet them, and odd ones that meet none.
WORDS = sorted(
    {word for rule in ROLE_RULES for word in re.findall(r"[a-z_0-9]+", rule.pattern)}
    | {template for _, template in BIAS_PARTNERS}
    | {"weight", "bias", "kernel", "qweight", "scales", "weight_scale_inv", "absmax", "SCB"}
    | {"0", "00", "1e5", "999999999999999999999", "٣", "²", ".", "..a", "a/b", "::", "{0}", "[x]"}
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A correct file: any names, dtypes and small shapes, any bytes."""
    word = st.sampled_from(WORDS) | st.text(max_size=6).filter(str.isprintable)
    name = st.lists(word, min_size=1, max_size=4).map(".".join)
    allowed = name.filter(lambda text: text and ".." not in text.replace("\\", "/").split("/"))
    names = draw(st.lists(allowed, unique=True, min_size=1, max_size=MAX_TENSORS))
    header: dict[str, Any] = {}
    position = 0
    for tensor_name in names:
        dtype = draw(st.sampled_from(sorted(ELEMENT_TYPES)))
        shape = draw(st.lists(st.integers(0, 4), max_size=8))
        count = 1
        for dim in shape:
            count *= dim
        bits = count * ELEMENT_TYPES[dtype].bits
        if bits % 8:
            shape, bits = [*shape[:7], 8], bits * 8 if len(shape) < 8 else 0
            if bits == 0:
                shape = [0]
        end = position + bits // 8
        header[tensor_name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    return wrap(json.dumps(header), draw(st.binary(min_size=position, max_size=position)))


def check_plan(plan: LayerPlan, data_bytes: int) -> None:
    assert sum(plan.account().values()) == data_bytes
    names = [name for layer in plan.layers for name in (layer.name, layer.bias_name) if name]
    assert len(names) == len(set(names)) == len(plan.roles)
    assert all(layer.why in set(Reason) | {""} for layer in plan.layers)


@settings(max_examples=150)
@given(files())
def test_any_correct_file_is_planned_inspected_packed_and_restored(
    tmp_path: Path, raw: bytes
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    checkpoint = Checkpoint.open(path)
    check_plan(plan_layers(list(checkpoint.tensors.values()), {}), checkpoint.data_bytes)
    found = inspect_path(path)
    json.dumps(found)
    render_inspection(found, width=80)
    pack_path(path, tmp_path / "tokens")
    unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == raw


@pytest.mark.parametrize("key", LITTLE)
def test_a_hostile_header_ends_in_its_reason_in_inspect_too(tmp_path: Path, key: str) -> None:
    raw, reason = LITTLE[key]
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    with pytest.raises(RefusedError) as caught:
        inspect_path(path)
    assert caught.value.reason == reason
    assert str(caught.value).startswith("m.safetensors: ")


@pytest.mark.parametrize(
    "config",
    [
        {"tensor_order": ["a"] * 1000},
        {"tensor_order": [None, 1, {}, ["a"]]},
        {"tensor_order": {"a": 1}},
        {"model_type": ["x"], "tie_word_embeddings": "yes"},
    ],
)
def test_a_config_that_lies_changes_nothing_but_the_order(config: dict[str, Any]) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
    header = parse_header(wrap(text, bytes(8)), file_bytes=len(text) + 16)
    check_plan(plan_layers(header.tensors, config), 8)


def test_huge_shapes_are_planned_from_the_header_alone() -> None:
    """An exabyte of weights, as a header that the file never keeps; a plan has no values."""
    side = 2**30
    entry = {"dtype": "F8_E4M3", "shape": [side, side], "data_offsets": [0, side * side]}
    text = json.dumps({"model.layers.0.mlp.experts.gate_up_proj.weight": entry})
    header = parse_header(wrap(text), file_bytes=8 + len(text) + side * side)
    plan = plan_layers(header.tensors, {})
    check_plan(plan, side * side)
    assert plan.num_params == 2**60
