import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.hub.weight_files import INDEX, find_weight_files, parse_index

SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["model.safetensors", "other.safetensors"], ["model.safetensors"]),
        (["pytorch_model.bin", "model.safetensors"], ["model.safetensors"]),
        (["open_clip.safetensors"], ["open_clip.safetensors"]),
        (["b.safetensors", "a.safetensors", "sub/0.safetensors"], ["a.safetensors"]),
        (["x.fp16.safetensors", "x.safetensors"], ["x.safetensors"]),
        (["x.fp16.safetensors"], ["x.fp16.safetensors"]),
        (SHARDS, SHARDS),
        (
            ["model_index.json", "u/d.safetensors", "u/d.fp16.safetensors", "v/d.safetensors"],
            ["u/d.safetensors", "v/d.safetensors"],
        ),
    ],
)  # fmt: skip
def test_the_files_that_are_the_model_are_found(names: list[str], paths: list[str]) -> None:
    assert find_weight_files(names).paths == paths


def test_a_sharded_model_is_named_by_its_index() -> None:
    found = find_weight_files([INDEX, *SHARDS])
    assert (found.paths, found.index_path) == ([], INDEX)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], Reason.NO_WEIGHTS),
        (["README.md", "config.json"], Reason.NO_WEIGHTS),
        (["sub/x.safetensors"], Reason.NO_WEIGHTS),
        (["pytorch_model.bin"], Reason.PICKLE_ONLY),
        (["WEIGHTS.PT"], Reason.PICKLE_ONLY),
        (["sub/model.ckpt"], Reason.PICKLE_ONLY),
        (["model.h5"], Reason.PICKLE_ONLY),
        (["adapter_config.json", "model.safetensors"], Reason.ADAPTER),
        (["adapter_model.safetensors"], Reason.ADAPTER),
        (SHARDS[:1], Reason.INVALID_INDEX),
    ],
)
def test_a_repo_without_a_model_has_its_reason(names: list[str], reason: Reason) -> None:
    with pytest.raises(
        RefusedError, match=r"adapter|never opened|no safetensors|missing"
    ) as caught:
        find_weight_files(names)
    assert caught.value.reason is reason


def index(weight_map: Any) -> bytes:
    return json.dumps({"metadata": {"total_size": 3}, "weight_map": weight_map}).encode()


def test_an_index_maps_tensors_to_files() -> None:
    weight_map = {"a": SHARDS[0], "b": SHARDS[1]}
    assert parse_index(index(weight_map), SHARDS) == weight_map


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.INVALID_INDEX),
        (b"[]", Reason.INVALID_INDEX),
        (b"[" * 100_000, Reason.INVALID_INDEX),
        (b'{"weight_map": 3}', Reason.INVALID_INDEX),
        (index({}), Reason.INVALID_INDEX),
        (index(["a"]), Reason.INVALID_INDEX),
        (index({"a": "absent.safetensors"}), Reason.INVALID_INDEX),
        (index({"a": "config.json"}), Reason.INVALID_INDEX),
        (index({str(n): f"{n}.safetensors" for n in range(3000)}), Reason.INVALID_INDEX),
        (index({"a": "../../../api/whoami-v2"}), Reason.UNSAFE_FILE_NAME),
        (index({"a": "../other/repo.safetensors"}), Reason.UNSAFE_FILE_NAME),
        (index({"a": "/etc/passwd"}), Reason.UNSAFE_FILE_NAME),
        (index({"a": 3}), Reason.UNSAFE_FILE_NAME),
        (index({"a": ["x"]}), Reason.UNSAFE_FILE_NAME),
        (index({"a": SHARDS[0], "b": "a\\..\\b"}), Reason.UNSAFE_FILE_NAME),
    ],
)
def test_a_hostile_index_is_refused_with_its_reason(data: bytes, reason: Reason) -> None:
    with pytest.raises(RefusedError, match=r"[Tt]he index") as caught:
        parse_index(data, [*SHARDS, "config.json"])
    assert caught.value.reason is reason


JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(SHARDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    JSON | st.fixed_dictionaries({"weight_map": JSON}), st.binary(max_size=8), st.integers(0, 60)
)
def test_any_index_is_a_map_into_the_repo_or_refused(
    index: object, noise: bytes, place: int
) -> None:
    data = json.dumps(index).encode()
    damaged = data[:place] + noise + data[place + len(noise) :]
    for raw in (data, damaged):
        try:
            weight_map = parse_index(raw, SHARDS)
        except RefusedError as error:
            assert error.reason in {Reason.INVALID_INDEX, Reason.UNSAFE_FILE_NAME}  # noqa: PT017
        else:
            assert set(weight_map.values()) <= set(SHARDS)


def test_an_index_of_nothing_but_brackets_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RefusedError, match=r"may hold 600000 values, it holds up to \d+ or more"):
        parse_index(b'{"a":[' + b"[]," * 10**6 + b"1]}", SHARDS)
