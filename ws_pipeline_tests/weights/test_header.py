"""Headers: what the official writer makes is read, and every broken rule has its own reason."""

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from ws_pipeline.errors import HeaderError, Reason
from ws_pipeline.weights.header import (
    MAX_HEADER_BYTES,
    Header,
    HeaderLimits,
    parse_header,
    parse_header_record,
    read_header_bytes,
)
from ws_pipeline_tests.weights.safetensors_bytes import entry, make_file, wrap

DTYPES = (np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_)


def parse(raw: bytes, **limits: int) -> Header:
    return parse_header(raw, file_bytes=len(raw), limits=HeaderLimits(**limits))


def refusal(raw: bytes, **limits: int) -> Reason:
    with pytest.raises(HeaderError) as caught:
        parse(raw, **limits)
    assert caught.value.exit_code == 2
    return caught.value.reason


@given(
    st.dictionaries(
        st.text("abcz._0189-/ é", min_size=1, max_size=12).filter(
            lambda name: ".." not in name.split("/")
        ),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    )
)
def test_what_the_official_writer_makes_is_read_alike(
    kinds: dict[str, tuple[type, list[int]]],
) -> None:
    tensors = {name: np.ones(shape, dtype) for name, (dtype, shape) in kinds.items()}
    raw = save(tensors, metadata={"format": "np"})
    header = parse(raw)
    assert {t.name: t.shape for t in header.tensors} == {n: v.shape for n, v in tensors.items()}
    for tensor in header.tensors:
        values = tensors[tensor.name]
        start = header.header_bytes + tensor.start
        assert raw[start : start + tensor.num_bytes] == values.tobytes()
        assert tensor.num_params == values.size
    assert header.header_bytes + header.data_bytes == len(raw)
    assert header.metadata == {"format": "np"}


def test_the_exact_bytes_of_a_small_file() -> None:
    text = b'{"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'
    header = parse(b"\x36\x00\x00\x00\x00\x00\x00\x00" + text + b"\x00\x3c\x00\x40")
    (tensor,) = header.tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("w", "F16", (2,))
    assert (tensor.start, tensor.end, header.header_bytes, header.data_bytes) == (0, 4, 62, 4)


def test_a_record_is_json_and_says_where_everything_lies() -> None:
    raw = make_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64)})
    record = json.loads(json.dumps(parse_header_record(raw, len(raw))))
    assert record["num_bytes"] == 32
    assert record["header_bytes"] == len(raw) - 32
    assert record["tensors"][1] == {
        "name": "b",
        "dtype": "I64",
        "shape": [],
        "num_params": 1,
        "num_bytes": 8,
        "start": 24,
        "end": 32,
    }


def test_a_prefix_is_enough_when_it_holds_the_header() -> None:
    raw = make_file({"a": np.zeros(1000, np.float32)})
    num_bytes = read_header_bytes(raw[:8], file_bytes=len(raw))
    assert parse_header(raw[:num_bytes], file_bytes=len(raw)) == parse(raw)
    with pytest.raises(HeaderError, match="were given") as caught:
        parse_header(raw[: num_bytes - 1], file_bytes=len(raw))
    assert caught.value.reason is Reason.HEADER_TRUNCATED


def test_trailing_spaces_and_packed_types_are_fine() -> None:
    text = json.dumps({"q": entry("F4", [4], 0, 2), "e": entry("F32", [0, 3], 2, 2)}) + "    "
    header = parse(wrap(text, b"\0\0"))
    assert [(t.name, t.num_params, t.num_bytes) for t in header.tensors] == [
        ("q", 4, 2),
        ("e", 0, 0),
    ]


def one(**changes: Any) -> bytes:
    """A file of one tensor with something wrong in its entry."""
    fields = entry("F32", [1], 0, 4) | changes
    return wrap(json.dumps({"w": fields}), b"\0" * 4)


def named(name: str) -> bytes:
    return wrap(json.dumps({name: entry("F32", [1], 0, 4)}), b"\0" * 4)


HOSTILE: dict[str, tuple[bytes, Reason]] = {
    "a name that climbs": (named("../../etc/x"), Reason.HEADER_BAD_NAME),
    "a name that climbs backwards": (named("a\\..\\x"), Reason.HEADER_BAD_NAME),
    "no bytes": (b"", Reason.HEADER_TRUNCATED),
    "length word cut": (b"\x01\x00", Reason.HEADER_TRUNCATED),
    "header longer than the file": (wrap("{}")[:-1], Reason.HEADER_TRUNCATED),
    "header of 2**63 bytes": (b"\xff" * 8 + b"{}", Reason.HEADER_TOO_LARGE),
    "header above the cap": (wrap(b"{" + b" " * MAX_HEADER_BYTES), Reason.HEADER_TOO_LARGE),
    "empty header": (wrap(""), Reason.HEADER_NOT_JSON),
    "leading space": (wrap(" {}"), Reason.HEADER_NOT_JSON),
    "a list": (wrap("[]"), Reason.HEADER_NOT_JSON),
    "null": (wrap("null"), Reason.HEADER_NOT_JSON),
    "cut JSON": (wrap('{"w":'), Reason.HEADER_NOT_JSON),
    "not UTF-8": (wrap(b'{"\xff":1}'), Reason.HEADER_NOT_JSON),
    "NaN dimension": (one(shape=[float("nan")]), Reason.HEADER_NOT_JSON),
    "fraction": (one(data_offsets=[0, 4.0]), Reason.HEADER_NOT_JSON),
    "integer of 5000 digits": (
        wrap('{"w":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,4]}}'),
        Reason.HEADER_NOT_JSON,
    ),
    "deep nesting": (wrap('{"w":' + "[" * 10**5 + "]" * 10**5 + "}"), Reason.HEADER_INVALID),
    "tensor is a number": (wrap('{"w":1}'), Reason.HEADER_INVALID),
    "field missing": (wrap('{"w":{"dtype":"F32","shape":[]}}'), Reason.HEADER_INVALID),
    "unknown field": (one(extra=1), Reason.HEADER_INVALID),
    "metadata not strings": (wrap('{"__metadata__":{"a":1}}'), Reason.HEADER_INVALID),
    "metadata not an object": (wrap('{"__metadata__":[]}'), Reason.HEADER_INVALID),
    "name twice": (
        wrap(
            '{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
            '"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        ),
        Reason.HEADER_DUPLICATE_NAME,
    ),
    "metadata twice": (wrap('{"__metadata__":{},"__metadata__":{}}'), Reason.HEADER_DUPLICATE_NAME),
    "field twice": (
        wrap('{"w":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        Reason.HEADER_DUPLICATE_NAME,
    ),
    "empty name": (wrap(json.dumps({"": entry("U8", [0], 0, 0)})), Reason.HEADER_BAD_NAME),
    "NUL in a name": (wrap(json.dumps({"a\0": entry("U8", [0], 0, 0)})), Reason.HEADER_BAD_NAME),
    "newline in a name": (
        wrap(json.dumps({"a\nb": entry("U8", [0], 0, 0)})),
        Reason.HEADER_BAD_NAME,
    ),
    "lone surrogate": (
        wrap(json.dumps({"\ud800": entry("U8", [0], 0, 0)})),
        Reason.HEADER_BAD_NAME,
    ),
    "name of 513 bytes": (
        wrap(json.dumps({"a" * 513: entry("U8", [0], 0, 0)})),
        Reason.HEADER_BAD_NAME,
    ),
    "unknown dtype": (one(dtype="F31"), Reason.HEADER_BAD_DTYPE),
    "lower-case dtype": (one(dtype="f32"), Reason.HEADER_BAD_DTYPE),
    "dtype a list": (one(dtype=["F32"]), Reason.HEADER_BAD_DTYPE),
    "shape a string": (one(shape="1"), Reason.HEADER_BAD_SHAPE),
    "boolean dimension": (one(shape=[True]), Reason.HEADER_BAD_SHAPE),
    "negative dimension": (one(shape=[-1]), Reason.HEADER_BAD_SHAPE),
    "rank 9": (one(shape=[1] * 9), Reason.HEADER_BAD_SHAPE),
    "dimension of 2**41": (one(shape=[0, 2**41]), Reason.HEADER_BAD_SHAPE),
    "dimension of 2**64": (one(shape=[0, 2**64 - 1]), Reason.HEADER_BAD_SHAPE),
    "three offsets": (one(data_offsets=[0, 4, 4]), Reason.HEADER_BAD_OFFSETS),
    "reversed offsets": (one(data_offsets=[4, 0]), Reason.HEADER_BAD_OFFSETS),
    "negative offset": (one(data_offsets=[-4, 0]), Reason.HEADER_BAD_OFFSETS),
    "size mismatch": (one(shape=[2]), Reason.HEADER_BAD_OFFSETS),
    "product overflows": (one(shape=[2**40] * 8), Reason.HEADER_BAD_OFFSETS),
    "F4 misaligned": (one(dtype="F4", shape=[7]), Reason.HEADER_BAD_OFFSETS),
    "hole": (one(data_offsets=[4, 8]) + b"\0" * 4, Reason.HEADER_BAD_OFFSETS),
    "trailing byte": (one() + b"\0", Reason.HEADER_BAD_OFFSETS),
    "data cut": (one()[:-1], Reason.HEADER_BAD_OFFSETS),
    "overlap": (
        wrap(json.dumps({"a": entry("U8", [3], 0, 3), "b": entry("U8", [3], 1, 4)}), b"\0" * 4),
        Reason.HEADER_BAD_OFFSETS,
    ),
    "the same bytes twice": (
        wrap(json.dumps({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 0, 4)}), b"\0" * 4),
        Reason.HEADER_BAD_OFFSETS,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_ends_in_its_own_reason(name: str) -> None:
    raw, reason = HOSTILE[name]
    assert refusal(raw) is reason


def test_too_many_tensors_are_refused_before_they_are_parsed() -> None:
    many = ",".join(
        f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(210_000)
    )
    started = time.process_time()
    assert refusal(wrap("{" + many + "}")) is Reason.HEADER_TOO_MANY_TENSORS
    assert time.process_time() - started < 3.0


def test_metadata_of_millions_of_keys_is_refused_before_it_is_parsed() -> None:
    many = ",".join(f'"{i}":""' for i in range(10**6))
    started = time.process_time()
    assert refusal(wrap('{"__metadata__":{' + many + "}}")) is Reason.HEADER_INVALID
    assert time.process_time() - started < 3.0


def test_a_mixture_of_experts_header_is_read_in_reasonable_time() -> None:
    entries = {f"layers.0.experts.{i}.w1.weight": entry("U8", [1], i, i + 1) for i in range(49_152)}
    raw = wrap(json.dumps(entries), b"\0" * 49_152)
    started = time.process_time()
    assert len(parse(raw).tensors) == 49_152
    assert time.process_time() - started < 10.0


def test_limits_can_be_narrowed() -> None:
    assert refusal(one(), max_name_bytes=0) is Reason.HEADER_BAD_NAME
    assert refusal(one(), max_rank=0) is Reason.HEADER_BAD_SHAPE


@settings(max_examples=300)
@given(st.binary(max_size=120), st.data())
def test_random_damage_ends_in_a_header_error_or_a_valid_header(
    noise: bytes, data: st.DataObject
) -> None:
    raw = bytearray(make_file({"a": np.zeros((2, 2), np.float32), "b": np.zeros(3, np.int8)}))
    place = data.draw(st.integers(0, len(raw)))
    damaged = bytes(raw[:place]) + noise + bytes(raw[place + len(noise) :])
    try:
        header = parse(damaged)
    except HeaderError:
        return
    assert sum(t.num_bytes for t in header.tensors) == header.data_bytes
