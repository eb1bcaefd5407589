"""Windows: the true weights, masks and positions; draws that resume at any step."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError, Reason, WeightsError
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layout import TokenLayout, split_tokens
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.tokens.windows import Batch, ModelTokens, WindowDataset
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.layers import plan_family
from ws_pipeline.weights.matrix import join_matrix
from ws_pipeline.weights.plan import plan_layers
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


@pytest.fixture(scope="module")
def rows(folder: Path, store: Store) -> pl.DataFrame:
    files = store_repos(store, {kind: build(kind, folder / kind) for kind in KINDS})
    shards = pack_family(store, files, plan_family(store, files))
    return shards.with_columns(weight=pl.lit(1.0))


def cut_by_hand(path: Path, layout: TokenLayout) -> np.ndarray:  # type: ignore[type-arg]
    """All tokens of a checkpoint, straight from its tensors."""
    checkpoint = Checkpoint.open(path)
    plan = plan_layers(list(checkpoint.tensors.values()), {})
    parts = []
    for layer in plan.tokenised:
        bias = checkpoint.read(layer.bias_name) if layer.bias_name else None
        matrix = join_matrix(layer, checkpoint.read(layer.name), bias)
        values = matrix.reshape(-1).astype(np.float32)
        parts.append(split_tokens(layout, values, layer.rows, layer.matrix_cols))
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", ["dense", "sliced"])
@pytest.mark.parametrize("model", range(len(KINDS)))
def test_a_models_tokens_are_its_weights(
    folder: Path, store: Store, rows: pl.DataFrame, model: int, kind: str
) -> None:
    layout = TokenLayout(kind=kind, token_size=10)  # type: ignore[arg-type]
    row = rows.to_dicts()[model]
    expected = cut_by_hand(folder / KINDS[model], layout)
    for tokens in (
        ModelTokens.open(store, row, layout),
        ModelTokens.open_path(folder / KINDS[model], layout),
    ):
        whole = tokens.read(0, tokens.num_tokens)
        np.testing.assert_array_equal(whole.tokens, expected)
        assert whole.mask.sum() == row["num_values"]
        assert not whole.tokens[~whole.mask].any()
        stop = min(20, tokens.num_tokens)
        part = tokens.read(3, stop)
        np.testing.assert_array_equal(part.tokens, expected[3:stop])
        np.testing.assert_array_equal(part.positions, whole.positions[3:stop])
        np.testing.assert_array_equal(part.scale, whole.scale[3:stop])


def test_the_scale_of_a_token_is_mean_and_log_std_of_its_layer(
    store: Store, rows: pl.DataFrame
) -> None:
    row = rows.to_dicts()[0]
    tokens = ModelTokens.open(store, row, TokenLayout(token_size=10))
    window = tokens.read(0, tokens.num_tokens)
    for place, layer in enumerate(row["layers"]):
        values = window.tokens[window.layer == place][window.mask[window.layer == place]]
        mean, spread = window.scale[window.layer == place][0]
        assert mean == pytest.approx(values.mean(), abs=1e-6)
        assert spread == pytest.approx(np.log(values.std()), abs=1e-5)
        assert layer["std"] == pytest.approx(values.std(), rel=1e-5)


def test_tokens_beyond_the_model_are_an_error(store: Store, rows: pl.DataFrame) -> None:
    tokens = ModelTokens.open(store, rows.to_dicts()[0], TokenLayout())
    with pytest.raises(IndexError, match="the model has 3 tokens"):
        tokens.read(0, 4)


def test_weights_that_are_not_finite_are_not_read_from_a_path(tmp_path: Path) -> None:
    write_model(tmp_path / "m.safetensors", {"fc.weight": np.full((2, 2), np.nan, np.float32)})
    with pytest.raises(WeightsError) as caught:
        ModelTokens.open_path(tmp_path, TokenLayout())
    assert caught.value.reason is Reason.NON_FINITE_WEIGHTS


def make_dataset(store: Store, rows: pl.DataFrame, **changes: int) -> WindowDataset:
    settings = {"window_size": 12, "batch_size": 6, "num_steps": 50, "seed": 3} | changes
    return WindowDataset(store, rows, layout=TokenLayout(token_size=10), **settings)


def assert_equal(left: Batch, right: Batch) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_a_batch_has_the_contracts_arrays(store: Store, rows: pl.DataFrame) -> None:
    batch = make_dataset(store, rows)[0]
    assert {name: (array.dtype, array.shape) for name, array in batch.items()} == {
        "tokens": (np.float32, (6, 12, 10)),
        "mask": (np.bool_, (6, 12, 10)),
        "positions": (np.int64, (6, 12, 3)),
        "scale": (np.float32, (6, 12, 2)),
        "layer": (np.int32, (6, 12)),
        "model": (np.int32, (6,)),
    }


def test_every_window_is_a_run_of_one_model_padded_where_it_is_short(
    folder: Path, store: Store, rows: pl.DataFrame
) -> None:
    layout = TokenLayout(token_size=10)
    expected = {kind: cut_by_hand(folder / kind, layout) for kind in KINDS}
    dataset = make_dataset(store, rows, window_size=20)
    for step in range(20):
        batch = dataset[step]
        for index, model in enumerate(batch["model"]):
            tokens = expected[KINDS[model]]
            start, size = batch["positions"][index, 0, 0], min(20, len(tokens))
            np.testing.assert_array_equal(
                batch["tokens"][index, :size], tokens[start : start + size]
            )
            assert (batch["layer"][index, size:] == -1).all()
            assert not batch["mask"][index, size:].any()
            assert batch["mask"][index, :size].any(axis=1).all()


@given(step=st.integers(0, 49))
def test_a_step_is_the_same_in_whatever_order_and_with_whatever_cache(
    store: Store, rows: pl.DataFrame, step: int
) -> None:
    one, other = make_dataset(store, rows), make_dataset(store, rows, cache_bytes=1)
    other[17]
    assert_equal(one[step], other[step])


def test_seeds_and_steps_differ(store: Store, rows: pl.DataFrame) -> None:
    dataset = make_dataset(store, rows)
    assert (dataset[0]["positions"] != dataset[1]["positions"]).any()
    assert (dataset[0]["positions"] != make_dataset(store, rows, seed=4)[0]["positions"]).any()


def test_processes_share_a_step_without_overlap(store: Store, rows: pl.DataFrame) -> None:
    whole = make_dataset(store, rows)[7]
    for rank in range(3):
        share = make_dataset(store, rows, rank=rank, num_processes=3)[7]
        assert_equal(share, {name: array[rank::3] for name, array in whole.items()})


def test_models_are_drawn_by_their_weights_and_every_place_is_reached(
    store: Store, rows: pl.DataFrame
) -> None:
    weighted = rows.with_columns(weight=pl.Series([0.0, 1.0, 3.0, 0.0]))
    dataset = make_dataset(store, weighted, batch_size=60, num_steps=40)
    batches = [dataset[step] for step in range(40)]
    drawn = np.concatenate([batch["model"] for batch in batches])
    assert set(drawn) == {1, 2}
    assert (drawn == 2).mean() == pytest.approx(0.75, abs=0.03)
    starts = np.concatenate([batch["positions"][batch["model"] == 1, 0, 0] for batch in batches])
    num_tokens = ModelTokens.open(store, rows.to_dicts()[1], TokenLayout(token_size=10)).num_tokens
    assert set(starts) == set(range(num_tokens - 12 + 1))


def test_steps_beyond_the_end_are_an_error(store: Store, rows: pl.DataFrame) -> None:
    dataset = make_dataset(store, rows)
    assert len(dataset) == 50
    with pytest.raises(IndexError, match="there are 50 steps"):
        dataset[50]


@pytest.mark.parametrize("weights", [[0.0] * 4, [-1.0, 2, 2, 2], [float("nan"), 1, 1, 1]])
def test_weights_that_cannot_be_drawn_by_are_refused(
    store: Store, rows: pl.DataFrame, weights: list[float]
) -> None:
    with pytest.raises(ConfigError, match="weights that are not negative and not all zero"):
        make_dataset(store, rows.with_columns(weight=pl.Series(weights)))


def test_a_batch_that_does_not_divide_is_refused(store: Store, rows: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match="batch_size 6 must be a multiple of num_processes 4"):
        make_dataset(store, rows, num_processes=4)


def test_serving_windows_of_many_tiny_models_takes_a_few_milliseconds(
    store: Store, rows: pl.DataFrame
) -> None:
    many = pl.concat([rows] * 60)
    dataset = WindowDataset(
        store, many, layout=TokenLayout(), window_size=64, batch_size=32, num_steps=200, seed=0
    )
    for step in range(100):
        dataset[step]
    started = time.perf_counter()
    for step in range(100, 150):
        dataset[step]
    # Measured 0.6 ms without run-time type checks; the bound leaves room for a busy machine.
    assert (time.perf_counter() - started) / 50 < 0.02
