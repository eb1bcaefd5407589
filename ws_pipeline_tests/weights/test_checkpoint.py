"""Checkpoints: files, shards and repos are opened as one model and read tensor by tensor."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import HeaderError, MissingInputError, Reason, WeightsError
from ws_pipeline.weights.checkpoint import SMALL_FILE_BYTES, Checkpoint
from ws_pipeline_tests.weights.safetensors_bytes import entry, make_file, wrap, write_model

Arrays = dict[str, npt.NDArray[Any]]
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read_with_its_exact_bits(tmp_path: Path, dtype: type) -> None:
    values = np.arange(-6, 6).reshape(3, 4).astype(dtype)
    checkpoint = Checkpoint.open(write_model(tmp_path / "m.safetensors", {"w": values}))
    read = checkpoint.read("w")
    assert read.dtype == values.dtype
    assert read.shape == (3, 4)
    assert read.tobytes() == values.tobytes()


@given(st.integers(0, 20), st.integers(0, 20))
def test_any_range_of_a_tensor_can_be_read(tmp_path: Path, start: int, count: int) -> None:
    values = np.arange(20, dtype=np.float32)
    path = write_model(tmp_path / "m.safetensors", {"x": values[:3], "w": values})
    checkpoint = Checkpoint.open(path)
    if start + count > 20:
        with pytest.raises(IndexError, match="w has 20 elements"):
            checkpoint.read_flat("w", start, count)
    else:
        np.testing.assert_array_equal(
            checkpoint.read_flat("w", start, count), values[start : start + count]
        )


def test_packed_types_are_read_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(wrap(json.dumps({"q": entry("F4", [2, 4], 0, 4)}), b"\1\2\3\4"))
    np.testing.assert_array_equal(Checkpoint.open(path).read("q"), [1, 2, 3, 4])


def write_shards(folder: Path, index: object | None = None) -> Arrays:
    tensors: Arrays = {"a": np.ones(2, np.float32), "b": np.zeros((2, 2), np.float16)}
    for number, name in enumerate(tensors):
        write_model(folder / f"part-{number}.safetensors", {name: tensors[name]})
    if index is None:
        index = {"weight_map": {"a": "part-0.safetensors", "b": "part-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return tensors


def test_a_sharded_folder_is_one_model(tmp_path: Path) -> None:
    tensors = write_shards(tmp_path)
    write_model(tmp_path / "other.safetensors", {"a": np.zeros(1, np.float32)})
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        checkpoint = Checkpoint.open(path)
        assert checkpoint.data_bytes == 16
        for name, values in tensors.items():
            np.testing.assert_array_equal(checkpoint.read(name), values)


@pytest.mark.parametrize(
    "index",
    [
        {},
        [],
        {"weight_map": {}},
        {"weight_map": {"a": "../part-0.safetensors"}},
        {"weight_map": {"a": "/etc/x.safetensors"}},
        {"weight_map": {"a": "sub/part-0.safetensors"}},
        {"weight_map": {"a": "..\\part-0.safetensors"}},
        {"weight_map": {"a": "part-0.bin"}},
        {"weight_map": {"a": 3}},
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, index: object) -> None:
    write_shards(tmp_path, index)
    with pytest.raises(WeightsError, match=r"index\.json must") as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.reason is Reason.INVALID_INDEX


def test_an_index_that_names_a_missing_shard_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, {"weight_map": {"a": "part-7.safetensors"}})
    with pytest.raises(MissingInputError, match=r"part-7\.safetensors of the model is missing"):
        Checkpoint.open(tmp_path)


def test_model_safetensors_wins_over_its_neighbours_in_a_repo_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "model.safetensors", {"w": np.ones(1, np.float32)})
    write_model(tmp_path / "model.fp16.safetensors", {"w": np.ones(1, np.float16)})
    (tmp_path / "config.json").write_text('{"model_type": "mlp"}')
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.tensors["w"].dtype == "F32"
    assert checkpoint.config == {"model_type": "mlp"}


def test_one_name_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        write_model(tmp_path / name, {"w": np.ones(1, np.float32)})
    with pytest.raises(WeightsError, match="both hold 'w'") as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.reason is Reason.INVALID_INDEX


def test_files_may_lie_anywhere_under_any_name(tmp_path: Path) -> None:
    write_model(tmp_path / "blob-1", {"w": np.ones(1, np.float32)})
    (tmp_path / "blob-2").write_text('{"n": 1}')
    files = [("model.safetensors", tmp_path / "blob-1"), ("config.json", tmp_path / "blob-2")]
    checkpoint = Checkpoint.open_files(files)
    assert checkpoint.config == {"n": 1}
    assert checkpoint.tensors["w"].file == "model.safetensors"


def test_nothing_there_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"name a \.safetensors file or a repo folder"):
        Checkpoint.open(tmp_path / "nowhere")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(MissingInputError, match="pickled weights are not read"):
        Checkpoint.open(tmp_path)


def test_a_broken_file_is_named_and_keeps_its_reason(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(HeaderError, match=r"m\.safetensors: ") as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.reason is Reason.HEADER_TOO_LARGE


@pytest.mark.parametrize("text", ["[1]", "{", '{"a":NaN}', '{"a":' + "[" * 100 + "]" * 100 + "}"])
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    write_model(tmp_path / "model.safetensors", {"w": np.ones(1, np.float32)})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json") as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_a_file_that_shrinks_after_it_was_opened_is_an_error_not_a_crash(tmp_path: Path) -> None:
    raw = make_file({"w": np.ones(SMALL_FILE_BYTES, np.float32)})  # a small one is read at once
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    checkpoint = Checkpoint.open(path)
    path.write_bytes(raw[:-2000])
    with pytest.raises(WeightsError, match="ends before the bytes") as caught:
        checkpoint.read("w")
    assert caught.value.reason is Reason.HEADER_TRUNCATED
