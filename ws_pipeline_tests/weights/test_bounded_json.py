"""JSON from strangers stays within its bounds before and while it is parsed."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.weights.bounded_json import (
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
    started = time.monotonic()
    with pytest.raises(BoundedJsonError):
        load(hostile, max_bytes=10**7)
    assert time.monotonic() - started < 3.0
