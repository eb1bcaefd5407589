"""JSON from strangers stays within its bounds before and while it is parsed."""

import json
import re
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.bounded_json import (
    BoundedJsonError,
    DuplicateKeyError,
    load_json,
    measure_structure,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def load(text: str | bytes, max_depth: int = 64, max_bytes: int = 10**6) -> object:
    raw = text.encode() if isinstance(text, str) else text
    return load_json(raw, max_bytes=max_bytes, max_depth=max_depth)


@given(JSON)
def test_what_json_writes_is_read_back(value: object) -> None:
    assert load(json.dumps(value)) == value
    assert load(json.dumps(value, ensure_ascii=False)) == value


def test_structure_is_counted_outside_strings_only() -> None:
    found = measure_structure(rb'{"a{[\"\\":[1,2,{"b":"}:,"}]}')
    assert (found.depth, found.num_objects, found.num_colons, found.num_commas) == (3, 2, 2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":1,"a":2}', "'a' appears twice"),
        ('{"b":{"a":1,"a":2}}', "'a' appears twice"),
    ],
)
def test_a_repeated_key_is_refused_at_any_depth(text: str, message: str) -> None:
    with pytest.raises(DuplicateKeyError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 65 + "]" * 65, "nested 64 deep, it is 65"),
        ("[NaN]", "no number NaN"),
        ("[-Infinity]", "no number -Infinity"),
        ("[" + "9" * 5000 + "]", "more than 20 digits"),
        ('{"a":', "not valid JSON"),
        (b'{"\xff":1}', "not valid JSON"),
        ('"' + "x" * 200, "at most 100 bytes, it has 201"),
    ],
)
def test_every_other_breach_is_named(text: str | bytes, message: str) -> None:
    with pytest.raises(BoundedJsonError, match=message):
        load(text, max_bytes=100 if "x" in str(text) else 10**6)


@pytest.mark.parametrize("hostile", [b'"' + b'\\"' * 10**6, b"[" * 2 * 10**6, b'{"' * 10**6])
def test_hostile_text_costs_no_more_than_its_length(hostile: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BoundedJsonError):
        load(hostile, max_bytes=10**7)
    assert time.process_time() - started < 3.0


@pytest.mark.parametrize("unit", [b'"",', b"[],", b"[", b"1,", b" ", b'{"":{"":"\\""}},'])
def test_measuring_takes_constant_memory(unit: bytes) -> None:
    raw = unit * (4_000_000 // len(unit))
    tracemalloc.start()
    try:
        measure_structure(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6  # 256 KiB at a time, with an index and a running depth of 8 bytes each


@given(st.binary(max_size=400), st.integers(0, 5000))
def test_pieces_count_like_one(noise: bytes, padding: int) -> None:
    raw = b"[" * (padding % 7) + b" " * padding + noise
    skeleton = re.sub(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', b"", raw, flags=re.DOTALL)
    found = measure_structure(raw)
    assert found.num_objects == skeleton.count(b"{")
    assert found.num_containers == skeleton.count(b"{") + skeleton.count(b"[")
    assert (found.num_colons, found.num_commas) == (skeleton.count(b":"), skeleton.count(b","))
    assert found.has_long_number == bool(re.search(rb"[0-9]{21}", skeleton))


def test_a_long_number_on_the_edge_of_two_pieces_is_seen() -> None:
    for edge in range(4080, 4100):
        assert measure_structure(b" " * edge + b"1" * 21).has_long_number
        assert not measure_structure(b" " * edge + b"1" * 20).has_long_number


def test_more_values_than_allowed_are_refused_before_they_are_built() -> None:
    with pytest.raises(BoundedJsonError, match="may hold 10 values, it holds up to 11"):
        load_json(b"[0,0,0,0,0,0,0,0,0,0]", max_bytes=99, max_depth=2, max_values=10)
