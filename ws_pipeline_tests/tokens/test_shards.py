"""Shards: exact bytes, and whole checkpoints back from them, by store and by folder."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from ws_pipeline.errors import IntegrityError, MissingInputError, RefusedError
from ws_pipeline.tokens.manifests import read_token_layers
from ws_pipeline.tokens.pack_folder import LAYERS_NAME, MANIFEST_NAME
from ws_pipeline.tokens.shard_format import SHARD_NAME, open_shard, read_layer
from ws_pipeline.tokens.shards import (
    SHARDS_SCHEMA,
    pack_family,
    pack_path,
    unpack_model,
    unpack_path,
)
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.layers import plan_family
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.stage_tables import open_store, store_repos
from ws_pipeline_tests.weights.tiny_models import BUILDERS, build

DTYPES = [
    np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2, np.int64, np.int8, np.bool_,
]  # fmt: skip


def test_the_exact_bytes_of_a_small_shard(tmp_path: Path) -> None:
    weight = np.array([[1, 2], [3, 4], [5, 6]], np.float32) / 64
    path = write_model(
        tmp_path / "m.safetensors",
        {"fc.weight": weight, "fc.bias": weight[:, 0], "n": np.array(7, np.int64)},
    )
    manifest = pack_path(path, tmp_path / "out")
    raw = (tmp_path / "out" / SHARD_NAME).read_bytes()
    text = (
        '{"__metadata__":{"format":"ws_pipeline.tokens","version":"2"},'
        '"carried.n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        '"values.F32":{"dtype":"F32","shape":[9],"data_offsets":[8,44]}}'
    )
    padded = text + " " * (-len(text) % 8)
    values = np.array([1, 2, 1, 3, 4, 3, 5, 6, 5], np.float32) / 64
    expected = len(padded).to_bytes(8, "little") + padded.encode() + b"\7" + b"\0" * 7
    assert raw == expected + values.tobytes()
    (layer,) = manifest["layers"]
    assert (layer["offset"], layer["rows"], layer["cols"]) == (0, 3, 3)
    with safe_open(tmp_path / "out" / SHARD_NAME, framework="np") as shard:
        np.testing.assert_array_equal(shard.get_tensor("values.F32"), values)


@pytest.mark.parametrize("kind", BUILDERS)
def test_real_models_come_back_byte_for_byte(tmp_path: Path, kind: str) -> None:
    folder = build(kind, tmp_path / kind)
    pack_path(folder, tmp_path / "tokens")
    unpack_path(tmp_path / "tokens", tmp_path / "again")
    originals = sorted(folder.glob("*.safetensors"))
    for path in originals:
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    stored = (tmp_path / "tokens" / SHARD_NAME).stat().st_size
    data_bytes = Checkpoint.open(folder).data_bytes
    assert stored <= data_bytes + 8 + 400 + 120 * 40  # a header is all that is added
    assert (len(originals) > 1) == (tmp_path / "again" / "model.safetensors.index.json").exists()
    again = Checkpoint.open(tmp_path / "again")
    assert again.tensors.keys() == Checkpoint.open(folder).tensors.keys()


@st.composite
def models(draw: st.DrawFn) -> list[tuple[str, tuple[int, ...], type, int]]:
    leaves = ["weight", "bias", "running_mean", "kernel", "gamma", "beta", "embedding", "odd"]
    names = draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from(leaves)).map(".".join),
            unique=True,
            max_size=8,
        )
    )
    shape = st.lists(st.integers(0, 4), max_size=5).map(tuple)
    return [
        (name, draw(shape), draw(st.sampled_from(DTYPES)), draw(st.integers(0, 2**32)))
        for name in names
    ]


@settings(max_examples=150)
@given(models(), st.sampled_from(["normal", "bits"]))
def test_any_tensors_of_any_bits_come_back_byte_for_byte(
    tmp_path: Path, drawn: list[tuple[str, tuple[int, ...], type, int]], kind: str
) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, shape, dtype, seed in drawn:
        generator = np.random.default_rng(seed)
        if kind == "normal" or dtype is np.bool_:
            tensors[name] = 10.0 ** generator.integers(-4, 4) * generator.standard_normal(shape)
            tensors[name] = np.asarray(tensors[name]).astype(dtype)
        else:  # every bit pattern: NaN with payloads, infinities, subnormals, both zeros
            raw = generator.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
            tensors[name] = np.frombuffer(raw, dtype=dtype).reshape(shape)
    path = write_model(tmp_path / "m.safetensors", tensors, {"note": "é"})
    pack_path(path, tmp_path / "tokens")
    unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_tied_copies_are_stored_once_and_come_back_twice(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    path = write_model(tmp_path / "m.safetensors", {"lm_head.weight": table, "wte.weight": table})
    manifest = pack_path(path, tmp_path / "tokens")
    assert manifest["num_values"] == 400
    assert manifest["num_params"] == 800
    unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_read_layer_gives_the_true_weights_in_output_input_order(tmp_path: Path) -> None:
    folder = build("gpt2", tmp_path / "gpt2")
    manifest = pack_path(folder, tmp_path / "tokens")
    layers = {layer.name: layer for layer in read_token_layers(manifest)}
    name = "transformer.h.0.attn.c_attn"
    matrix = read_layer(open_shard(tmp_path / "tokens" / SHARD_NAME), layers[f"{name}.weight"])
    checkpoint = Checkpoint.open(folder)
    np.testing.assert_array_equal(matrix[:, :-1], checkpoint.read(f"{name}.weight").T)
    np.testing.assert_array_equal(matrix[:, -1], checkpoint.read(f"{name}.bias"))


def test_a_layer_table_that_lacks_a_layer_leaves_nothing_behind(tmp_path: Path) -> None:
    pack_path(build("mlp", tmp_path / "mlp"), tmp_path / "tokens")
    table = tmp_path / "tokens" / LAYERS_NAME
    pl.read_parquet(table).head(2).write_parquet(table)
    manifest_path = tmp_path / "tokens" / MANIFEST_NAME
    manifest = json.loads(manifest_path.read_text())
    manifest["layers_sha256"] = hashlib.sha256(table.read_bytes()).hexdigest()
    manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(
        IntegrityError, match=r"Every tensor must be restored, 2 were not, .*3\.bias"
    ):
        unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")
    assert not list(tmp_path.glob("again*"))


@pytest.mark.parametrize("name", [SHARD_NAME, LAYERS_NAME])
def test_a_changed_file_of_a_pack_folder_is_refused(tmp_path: Path, name: str) -> None:
    pack_path(build("mlp", tmp_path / "mlp"), tmp_path / "tokens")
    path = tmp_path / "tokens" / name
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="is not the file its manifest names"):
        unpack_path(tmp_path / "tokens", tmp_path / "again.safetensors")


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/../../x", "", "..\\x"])
def test_a_manifest_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    pack_path(build("mlp", tmp_path / "mlp"), tmp_path / "tokens")
    path = tmp_path / "tokens" / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    manifest["sources"][0]["name"] = name
    path.write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="must have a relative name"):
        unpack_path(tmp_path / "tokens", tmp_path / "out")


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"format":1}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(IntegrityError, match="is not a tokens manifest"):
        unpack_path(tmp_path, tmp_path / "out")


def test_a_folder_without_a_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="make it with `ws-pipeline tokens pack`"):
        unpack_path(tmp_path, tmp_path / "out")


def test_a_sharded_model_does_not_fit_into_one_file(tmp_path: Path) -> None:
    pack_path(build("t5_shards", tmp_path / "t5"), tmp_path / "tokens")
    (tmp_path / "file.safetensors").write_bytes(b"")
    with pytest.raises(RefusedError, match="must be a folder: the model has 3 files"):
        unpack_path(tmp_path / "tokens", tmp_path / "file.safetensors")


def test_the_stage_packs_what_was_planned_and_the_store_gives_it_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    folders = {kind: build(kind, tmp_path / "hub" / kind) for kind in ("mlp", "cnn", "llama_bf16")}
    files = store_repos(store, folders)
    layers = plan_family(store, files)
    frame = pack_family(store, layers)
    assert frame.schema == pl.Schema(SHARDS_SCHEMA)
    assert frame["accepted"].all()
    for row in frame.iter_rows(named=True):
        manifest = store.manifests.read(row["manifest"])
        (path,) = unpack_model(store, manifest, tmp_path / "again" / row["hub_id"])
        original = folders[row["hub_id"].removeprefix("id-")] / "model.safetensors"
        assert path.read_bytes() == original.read_bytes()
        assert row["num_bytes"] == len(store.blobs.read(row["shard_sha256"]))
        assert row["num_values"] == sum(layer["rows"] * layer["cols"] for layer in row["layers"])


def test_a_second_run_packs_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    files = store_repos(store, {"mlp": build("mlp", tmp_path / "hub")})
    layers = plan_family(store, files)
    first = pack_family(store, layers)
    second = pack_family(store, layers)
    assert not first["reused"].any()
    assert second["reused"].all()
    assert second.drop("reused").equals(first.drop("reused"))


def test_the_layer_table_needs_no_weights(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    files = store_repos(store, {"mlp": build("mlp", tmp_path / "hub")})
    layers = plan_family(store, files)
    for blob in (tmp_path / "store/blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    assert pack_family(store, layers)["accepted"].all()


def test_the_store_and_the_folder_get_the_same_shard(tmp_path: Path) -> None:
    folder = build("cnn", tmp_path / "hub")
    store = open_store(tmp_path)
    files = store_repos(store, {"cnn": folder})
    frame = pack_family(store, plan_family(store, files))
    manifest = pack_path(folder, tmp_path / "tokens")
    raw = (tmp_path / "tokens" / SHARD_NAME).read_bytes()
    assert frame["shard_sha256"].to_list() == [hashlib.sha256(raw).hexdigest()]
    assert manifest["shard"] == {"sha256": hashlib.sha256(raw).hexdigest(), "num_bytes": len(raw)}


def test_a_file_is_read_once_while_it_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    tensors = {  # even numbers: the sample of an even spread misleads nobody
        name: rng.permutation(np.linspace(-1, 1, rows * cols)).reshape(rows, cols).astype("f4")
        for name, rows, cols in (("fc.weight", 300, 401), ("h.0.mlp.c_fc.weight", 200, 800))
    }
    tensors["h.0.mlp.c_fc.bias"] = np.ones(800, np.float32)
    path = write_model(tmp_path / "m.safetensors", tensors)
    num_read = 0
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal num_read
        num_bytes = real(descriptor, buffers, offset)
        num_read += num_bytes
        return num_bytes

    monkeypatch.setattr(os, "preadv", preadv)
    pack_path(path, tmp_path / "tokens")
    data_bytes = Checkpoint.open(path).data_bytes
    # Beside the pass, a sample of each layer: four times its size to the power of two thirds.
    assert data_bytes <= num_read <= 1.2 * data_bytes


def test_packing_twice_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder = build("mlp", tmp_path / "mlp")
    first = pack_path(folder, tmp_path / "tokens")
    assert pack_path(folder, tmp_path / "tokens") == first
    names = sorted(path.name for path in (tmp_path / "tokens").iterdir())
    assert names == [LAYERS_NAME, MANIFEST_NAME, SHARD_NAME]
