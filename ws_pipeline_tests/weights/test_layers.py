"""The stage weights/layers: a row per repo, verdicts kept, statistics of every tokenised layer."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ws_pipeline.errors import Reason, WeightsError
from ws_pipeline.weights import layers
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.layers import LAYERS_SCHEMA, plan_family
from ws_pipeline.weights.packing import plan_checkpoint
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.stage_tables import open_store, store_repos
from ws_pipeline_tests.weights.tiny_models import build


@pytest.fixture
def repos(tmp_path: Path) -> dict[str, Path]:
    folders = {kind: build(kind, tmp_path / "hub" / kind) for kind in ("mlp", "cnn", "gpt2")}
    bad = np.ones((3, 3), np.float32)
    bad[1, 1] = np.nan
    for name, tensors in {
        "nan": {"fc.weight": bad},
        "integers": {"fc.weight": np.ones((3, 3), np.int8)},
        "nan_bn": {"fc.weight": np.eye(3, dtype=np.float32), "bn.running_var": bad[1]},
    }.items():
        folders[name] = tmp_path / "hub" / name
        write_model(folders[name] / "model.safetensors", tensors)
    folders["broken"] = tmp_path / "hub" / "broken"
    folders["broken"].mkdir()
    (folders["broken"] / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}extra")
    return folders


def test_each_repo_gets_a_row_and_each_refusal_its_reason(
    tmp_path: Path, repos: dict[str, Path]
) -> None:
    store = open_store(tmp_path)
    frame = plan_family(store, store_repos(store, repos))
    assert frame.schema == pl.Schema(LAYERS_SCHEMA)
    assert dict(zip(frame["hub_id"], frame["reason"], strict=True)) == {
        "id-mlp": "",
        "id-cnn": "",
        "id-gpt2": "",
        "id-nan": "non_finite_weights",
        "id-integers": "nothing_to_tokenize",
        "id-nan_bn": "non_finite_weights",
        "id-broken": "header_bad_offsets",
    }
    assert frame.filter(~pl.col("accepted"))["detail"].str.len_chars().min() > 20
    accepted = frame.filter("accepted")
    parts = [f"num_{part}_bytes" for part in ("tokenised", "carried", "excluded")]
    assert (accepted.select(pl.sum_horizontal(parts)).to_series() == accepted["num_bytes"]).all()


def test_statistics_are_there_exactly_for_tokenised_layers(
    tmp_path: Path, repos: dict[str, Path]
) -> None:
    store = open_store(tmp_path)
    frame = plan_family(store, store_repos(store, {"cnn": repos["cnn"]}))
    layers = frame.select("layers").explode("layers").unnest("layers").rename({"name": "tensor"})
    tokenised = layers["treatment"] == "tokenised"
    assert (layers["mean"].is_not_null() == tokenised).all()
    weight = Checkpoint.open(repos["cnn"]).read("3.weight").astype(np.float64)
    row = layers.row(by_predicate=pl.col("tensor") == "3.weight", named=True)
    assert row["w_std"] == pytest.approx(weight.std())
    assert row["w_q25"] == pytest.approx(np.quantile(weight, 0.25))
    assert row["b_mean"] is not None


def test_a_second_run_reads_verdicts_and_no_weights(tmp_path: Path, repos: dict[str, Path]) -> None:
    store = open_store(tmp_path)
    files = store_repos(store, repos)
    first = plan_family(store, files)
    shards = first["shard_sha256"].to_list()
    for blob in (tmp_path / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.name not in shards:
            blob.unlink()
    second = plan_family(store, files)
    assert not first["reused"].any()
    assert second["reused"].all()
    assert second.drop("reused").equals(first.drop("reused"))


def test_a_shard_that_is_gone_is_made_again(tmp_path: Path, repos: dict[str, Path]) -> None:
    store = open_store(tmp_path)
    files = store_repos(store, repos)
    first = plan_family(store, files)
    for sha256 in first["shard_sha256"].drop_nulls():
        store.blobs.remove(sha256)
    second = plan_family(store, files)
    assert second["reused"].to_list() == [not accepted for accepted in first["accepted"]]
    assert second.drop("reused").equals(first.drop("reused"))
    assert all(store.blobs.exists(sha256) for sha256 in first["shard_sha256"].drop_nulls())


@pytest.mark.parametrize(("num_models", "num_bytes"), [(1, 2**30), (2, 2**30), (256, 3000)])
def test_groups_of_any_size_give_the_same_rows(
    tmp_path: Path,
    repos: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    num_models: int,
    num_bytes: int,
) -> None:
    rng = np.random.default_rng(0)
    for number in range(5):  # a population; the last of it is unfit
        repos[f"p{number}"] = tmp_path / "hub" / f"p{number}"
        weight = rng.standard_normal((4, 3)).astype(np.float32)
        weight[0, 0] = np.inf if number == 4 else 1.0
        write_model(repos[f"p{number}"] / "model.safetensors", {"fc.weight": weight})
    whole = open_store(tmp_path / "whole")
    expected = plan_family(whole, store_repos(whole, repos))
    monkeypatch.setattr(layers, "GROUP_MODELS", num_models)
    monkeypatch.setattr(layers, "GROUP_BYTES", num_bytes)
    store = open_store(tmp_path / "parts")
    assert plan_family(store, store_repos(store, repos)).equals(expected)
    keys = whole.blobs.folder.keys("manifests")
    assert store.blobs.folder.keys("manifests") == keys
    for key in keys:
        assert store.blobs.folder.read(key) == whole.blobs.folder.read(key)
    reasons = dict(zip(expected["hub_id"], expected["reason"], strict=True))
    assert [reasons[f"id-p{number}"] for number in range(5)] == [""] * 4 + ["non_finite_weights"]


def test_a_renamed_repo_keeps_its_verdict_under_its_new_name(
    tmp_path: Path, repos: dict[str, Path]
) -> None:
    store = open_store(tmp_path)
    files = store_repos(store, {"mlp": repos["mlp"]})
    plan_family(store, files)
    renamed = plan_family(store, files.with_columns(repo_id=pl.lit("other/name")))
    assert renamed["repo_id"].to_list() == ["other/name"]
    assert renamed["reused"].all()


def test_no_repos_make_an_empty_table_of_the_same_columns(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    files = store_repos(store, {}).with_columns(accepted=pl.lit(True))
    assert plan_family(store, files.clear()).schema == pl.Schema(LAYERS_SCHEMA)


def test_packing_may_carry_what_a_corpus_refuses(repos: dict[str, Path]) -> None:
    checkpoint = Checkpoint.open(repos["nan"])
    with pytest.raises(WeightsError) as caught:
        plan_checkpoint(checkpoint)
    assert caught.value.reason is Reason.NON_FINITE_WEIGHTS
    plan, statistics = plan_checkpoint(checkpoint, carry_unfit=True)
    assert [(layer.treatment, layer.why) for layer in plan.layers] == [
        ("carried", "non_finite_weights")
    ]
    assert statistics == (None,)


def test_a_missing_file_is_a_row_now_and_no_verdict_for_ever(
    tmp_path: Path, repos: dict[str, Path]
) -> None:
    store = open_store(tmp_path)
    files = store_repos(store, {"mlp": repos["mlp"]})
    (blob,) = (file for file in (tmp_path / "store/blobs").rglob("*") if file.is_file())
    blob.rename(tmp_path / "elsewhere")
    frame = plan_family(store, files)
    assert frame["reason"].to_list() == ["missing_input"]
    assert frame["plan_manifest"].to_list() == [None]
    (tmp_path / "elsewhere").rename(blob)
    frame = plan_family(store, files)
    assert frame["accepted"].all()
    assert not frame["reused"].any()
