"""Windows: batches that are their models' bytes; draws that resume and are shared exactly."""

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError, IntegrityError, Reason, WeightsError
from ws_pipeline.storage.ranges import BLOCK_BYTES, CachedRanges
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.tokens.window_batch import PieceField, WindowBatch
from ws_pipeline.tokens.windows import ModelTokens, WindowDataset, read_windows
from ws_pipeline.weights.layers import plan_family
from ws_pipeline_tests.storage.s3_server import BUCKET, serve_s3
from ws_pipeline_tests.tokens.window_oracle import cut_model
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.stage_tables import open_store, store_repos
from ws_pipeline_tests.weights.tiny_models import build

KINDS = ("mlp", "cnn", "gpt2", "llama_bf16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windows")


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return open_store(folder)


def pack(folder: Path, store: Store, kinds: tuple[str, ...] = KINDS) -> pl.DataFrame:
    paths = {kind: folder / kind for kind in kinds}
    for kind, path in paths.items():
        if not path.exists():
            build(kind, path)
    files = store_repos(store, paths)
    shards = pack_family(store, plan_family(store, files))
    return shards.with_columns(weight=pl.lit(1.0))


@pytest.fixture(scope="module")
def rows(folder: Path, store: Store) -> pl.DataFrame:
    return pack(folder, store)


def make_dataset(
    store: Store, rows: pl.DataFrame, *, kind: Literal["dense", "sliced"] = "dense", **changes: int
) -> WindowDataset:
    settings = {"window_size": 12, "batch_size": 6, "num_steps": 50, "seed": 3} | changes
    return WindowDataset(store, rows, layout=TokenLayout(kind=kind, token_size=10), **settings)


def assert_equal(left: WindowBatch, right: WindowBatch) -> None:
    np.testing.assert_array_equal(left.pieces, right.pieces)
    np.testing.assert_array_equal(left.scales, right.scales)
    np.testing.assert_array_equal(left.models, right.models)
    assert left.sections == right.sections
    for section in left.sections:
        assert read_section(left, section.dtype).tobytes() == (
            read_section(right, section.dtype).tobytes()
        )


def read_section(batch: WindowBatch, dtype: str) -> np.ndarray:  # type: ignore[type-arg]
    (section,) = (each for each in batch.sections if each.dtype == dtype)
    kind = {"F32": np.uint32, "BF16": np.uint16}[dtype]
    size = section.num_values * np.dtype(kind).itemsize
    return batch.data[section.start_byte : section.start_byte + size].view(kind)


def test_a_batch_carries_each_weight_once_in_its_own_dtype(
    folder: Path, store: Store, rows: pl.DataFrame
) -> None:
    row = rows.to_dicts()[KINDS.index("llama_bf16")]
    model = ModelTokens.open(store, row, TokenLayout(token_size=10))
    batch = read_windows([model], [(0, model.num_tokens)], window_size=model.num_tokens + 3)
    assert [section.dtype for section in batch.sections] == ["BF16"]
    values = read_section(batch, "BF16")
    assert len(values) == row["num_values"]
    tables = batch.num_pieces * (len(PieceField) * 8 + 16)
    assert len(batch.data) <= 2 * row["num_values"] + tables + 32
    assert batch.num_real_tokens == model.num_tokens
    assert batch.pieces[-1, PieceField.NUM_TOKENS] == 3  # padding
    # True weights are the stored ones times two to the layer's exponent.
    truth = cut_model(folder / "llama_bf16", row["layers"], TokenLayout(token_size=10))
    stored = (values.astype(np.uint32) << 16).view(np.float32)
    exponents = np.concatenate(
        [np.full(each["rows"] * each["cols"], each["scale_exponent"]) for each in row["layers"]]
    )
    np.testing.assert_array_equal(np.ldexp(stored, exponents), truth.tokens[truth.mask])


def test_a_window_is_one_read_for_each_dtype_that_it_touches(
    store: Store, rows: pl.DataFrame
) -> None:
    for kind in ("dense", "sliced"):
        dataset = make_dataset(store, rows, kind=kind, window_size=30)  # type: ignore[arg-type]
        plans = [dataset.plan(step) for step in range(20)]
        assert all(len(plan.reads.models) == len(plan.models) for plan in plans)
        assert sum(len(plan.pieces) for plan in plans) > 2 * sum(len(p.models) for p in plans)


@pytest.mark.parametrize("spans", [(3, 3), (-1, 2), (0, 4), (0, 3)])
def test_windows_that_a_model_does_not_have_are_an_error(
    store: Store, rows: pl.DataFrame, spans: tuple[int, int]
) -> None:
    tokens = ModelTokens.open(store, rows.to_dicts()[0], TokenLayout())
    with pytest.raises(IndexError, match="the model has 3 tokens"):
        read_windows([tokens], [spans], window_size=2)


def test_weights_that_are_not_finite_are_not_read_from_a_path(tmp_path: Path) -> None:
    write_model(tmp_path / "m.safetensors", {"fc.weight": np.full((2, 2), np.nan, np.float32)})
    with pytest.raises(WeightsError) as caught:
        ModelTokens.open_path(tmp_path, TokenLayout())
    assert caught.value.reason is Reason.NON_FINITE_WEIGHTS


def test_a_layer_table_of_another_shard_is_refused(store: Store, rows: pl.DataFrame) -> None:
    mixed = rows.with_columns(shard_sha256=pl.col("shard_sha256").reverse())
    dataset = make_dataset(store, mixed, batch_size=60)
    with pytest.raises(IntegrityError, match="its layer table belongs to another"):
        dataset[0]


@settings(max_examples=20)
@given(step=st.integers(0, 49))
def test_a_step_is_the_same_whatever_was_read_before(
    store: Store, rows: pl.DataFrame, step: int
) -> None:
    one, other = make_dataset(store, rows), make_dataset(store, rows, num_steps=60)
    other[17]
    other[40]
    assert_equal(one[step], other[step])


def test_a_batch_can_go_into_memory_that_is_used_again(store: Store, rows: pl.DataFrame) -> None:
    dataset = make_dataset(store, rows)
    out = np.full(dataset.max_batch_bytes, 255, dtype=np.uint8)
    for step in range(50):
        batch = dataset.read(step, out)
        assert np.shares_memory(batch.data, out)
        assert_equal(batch, dataset[step])
    assert not np.shares_memory(dataset.read(3, out[:10]).data, out)  # too short


def test_seeds_and_steps_differ(store: Store, rows: pl.DataFrame) -> None:
    dataset = make_dataset(store, rows)
    assert (dataset.spans(0).starts != dataset.spans(1).starts).any()
    assert (dataset.spans(0).starts != make_dataset(store, rows, seed=4).spans(0).starts).any()


@pytest.mark.parametrize("num_processes", [2, 3, 6])
def test_processes_share_a_step_evenly_in_order_and_without_overlap(
    store: Store, rows: pl.DataFrame, num_processes: int
) -> None:
    whole = make_dataset(store, rows)
    shares = [
        make_dataset(store, rows, rank=rank, num_processes=num_processes)
        for rank in range(num_processes)
    ]
    for step in (0, 7, 49):
        for name in ("models", "starts", "stops"):
            together = [getattr(share.spans(step), name) for share in shares]
            assert {len(part) for part in together} == {6 // num_processes}
            np.testing.assert_array_equal(
                np.concatenate(together), getattr(whole.spans(step), name)
            )
        values = [read_all(share[step]) for share in shares]
        assert sorted(np.concatenate(values)) == sorted(read_all(whole[step]))


def read_all(batch: WindowBatch) -> np.ndarray:  # type: ignore[type-arg]
    sections = [read_section(batch, section.dtype) for section in batch.sections]
    return np.concatenate([section.astype(np.uint32) for section in sections])


def test_steps_beyond_the_end_are_an_error(store: Store, rows: pl.DataFrame) -> None:
    dataset = make_dataset(store, rows)
    assert len(dataset) == 50
    with pytest.raises(IndexError, match="there are 50 steps"):
        dataset[50]


def test_a_batch_that_does_not_divide_is_refused(store: Store, rows: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match="batch_size 6 must be a multiple of num_processes 4"):
        make_dataset(store, rows, num_processes=4)


def test_a_remote_store_serves_the_same_windows_within_its_cache(
    folder: Path, store: Store, rows: pl.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "s3").mkdir()
    (tmp_path / "large").mkdir()
    values = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    write_model(tmp_path / "large" / "model.safetensors", {"fc.weight": values})
    with serve_s3(tmp_path / "s3") as server:
        options = {"storage_options": server.storage_options}
        root = f"s3://{BUCKET}/windows"
        remote_rows = pack(folder, Store.open(root, cache=tmp_path / "packing", **options))
        remote = Store.open(root, cache=tmp_path / "cache", **options)
        there = make_dataset(remote, remote_rows, cache_bytes=64 * 1024)
        here = make_dataset(store, rows)
        for step in (0, 1, 2, 30, 31, 5, 49):
            assert_equal(there[step], here[step])
        there.close()
        # Of a large model, no more than the blocks of the header and of the window.
        large = pack(tmp_path, Store.open(root, cache=tmp_path / "packing", **options), ("large",))
        dataset = make_dataset(remote, large, batch_size=1, num_steps=1, seed=0)
        assert read_all(dataset[0]).any()
        assert isinstance(dataset._ranges, CachedRanges)
        assert dataset._ranges.num_fetched_bytes <= 3 * BLOCK_BYTES
        assert large["num_bytes"][0] > 60 * BLOCK_BYTES
        dataset.close()
    blobs = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert blobs == []  # no model was copied whole
