"""Expansion on the device: the same bits as cutting every layer, for all dtypes and layouts."""

from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_pipeline.backbone.expansion import TORCH_DTYPES, to_windows
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.tokens.windows import ModelTokens, WindowDataset, read_windows
from ws_pipeline.weights.dtypes import numpy_dtype, widen
from ws_pipeline.weights.layers import plan_family
from ws_pipeline_tests.tokens.window_oracle import WholeModel, assert_same_bits, cut_model, stack
from ws_pipeline_tests.weights.safetensors_bytes import write_model
from ws_pipeline_tests.weights.stage_tables import open_store, store_repos
from ws_pipeline_tests.weights.tiny_models import build

CPU = torch.device("cpu")
BUILT = ("cnn", "gpt2", "llama_bf16")
Kind = Literal["dense", "sliced"]


def write_mixed(folder: Path) -> None:
    """A model whose layers take turns in all dtypes, with scales from tiny to huge."""
    random = np.random.default_rng(0)
    kinds = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
             ml_dtypes.float8_e5m2]  # fmt: skip
    spread = [1e-3, 1e-30, 1.0, 1e20, 1.0, 4.0]
    state = {}
    for turn in range(3):
        for index, (kind, std) in enumerate(zip(kinds, spread, strict=True)):
            shape = (3 + turn, 5 + index)
            values = (random.standard_normal(shape) * std).astype(kind)
            state[f"layers.{turn}.{index}.weight"] = values
    state["tiny.weight"] = (random.standard_normal((4, 6)) * 1e-41).astype(np.float32)
    state["huge.weight"] = (random.uniform(-3e38, 3e38, (4, 6))).astype(np.float32)
    state["far.weight"] = random.standard_normal((4, 6)) * 1e-200
    folder.mkdir()
    write_model(folder / "model.safetensors", state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expansion")
    for kind in BUILT:
        build(kind, folder / kind)
    write_mixed(folder / "mixed")
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> tuple[Store, pl.DataFrame]:
    store = open_store(folder)
    files = store_repos(store, {kind: folder / kind for kind in (*BUILT, "mixed")})
    rows = pack_family(store, plan_family(store, files))
    assert rows["accepted"].all()
    return store, rows.with_columns(weight=pl.lit(1.0))


def cut_all(folder: Path, rows: pl.DataFrame, layout: TokenLayout) -> list[WholeModel]:
    kinds = (*BUILT, "mixed")
    return [
        cut_model(folder / kind, row["layers"], layout)
        for kind, row in zip(kinds, rows.to_dicts(), strict=True)
    ]


@pytest.mark.parametrize("kind", ["dense", "sliced"])
@settings(max_examples=12)
@given(token_size=st.integers(1, 70), window=st.integers(1, 50), seed=st.integers(0, 99))
def test_drawn_windows_are_the_layers_cut_to_the_bit(
    folder: Path,
    corpus: tuple[Store, pl.DataFrame],
    kind: Kind,
    token_size: int,
    window: int,
    seed: int,
) -> None:
    store, rows = corpus
    layout = TokenLayout(kind=kind, token_size=token_size)
    dataset = WindowDataset(
        store, rows, layout=layout, window_size=window, batch_size=5, num_steps=3, seed=seed
    )
    whole = cut_all(folder, rows, layout)
    for step in range(3):
        batch, spans = dataset[step], dataset.spans(step)
        assert len(batch.data) <= dataset.max_batch_bytes
        places = list(zip(spans.starts.tolist(), spans.stops.tolist(), strict=True))
        expected = stack([whole[model] for model in spans.models], places, window)
        windows = to_windows(batch, CPU)
        assert_same_bits(windows, expected)
        assert batch.num_real_tokens == int(windows.mask.any(dim=-1).sum())


@pytest.mark.parametrize("kind", ["dense", "sliced"])
def test_a_checkpoint_without_a_shard_gives_the_same_bits(
    folder: Path, corpus: tuple[Store, pl.DataFrame], kind: Kind
) -> None:
    store, rows = corpus
    layout = TokenLayout(kind=kind, token_size=9)
    whole = cut_all(folder, rows, layout)
    packed = [ModelTokens.open(store, row, layout) for row in rows.to_dicts()]
    direct = [ModelTokens.open_path(folder / name, layout) for name in (*BUILT, "mixed")]
    longest = max(model.num_tokens for model in packed)
    spans = [(0, model.num_tokens) for model in packed]
    expected = stack(whole, spans, longest)
    for models in (packed, direct):
        assert_same_bits(
            to_windows(read_windows(models, spans, window_size=longest), CPU), expected
        )


def test_every_dtype_that_can_be_served_has_a_tensor_dtype_with_the_same_values() -> None:
    assert set(TORCH_DTYPES) == set(DTYPES) - {"F64"}
    for name, dtype in TORCH_DTYPES.items():
        kind = numpy_dtype(name)
        if kind.itemsize > 2:
            continue
        raw = np.arange(2 ** (8 * kind.itemsize)).astype(f"u{kind.itemsize}")
        expected = widen(raw.view(kind))
        given = torch.from_numpy(raw.view(np.uint8)).view(dtype).to(torch.float32).numpy()
        same = (given.view(np.uint32) == expected.view(np.uint32)) | np.isnan(expected)
        assert same.all(), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_gives_the_same_bits(
    folder: Path, corpus: tuple[Store, pl.DataFrame]
) -> None:
    store, rows = corpus
    layout = TokenLayout(kind="sliced", token_size=7)
    dataset = WindowDataset(
        store, rows, layout=layout, window_size=20, batch_size=16, num_steps=4, seed=1
    )
    for step in range(4):
        here = to_windows(dataset[step], CPU)
        there = to_windows(dataset[step], torch.device("cuda"))
        assert_same_bits(there, {name: getattr(here, name).numpy() for name in here._fields})
