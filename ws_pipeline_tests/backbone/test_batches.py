"""Batches on their way: one read ahead, into two buffers that take turns."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ws_pipeline.backbone.batches import iterate_batches, num_real_tokens, to_windows
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.window_batch import WindowBatch
from ws_pipeline.tokens.windows import WindowDataset
from ws_pipeline_tests.backbone.tiny_corpus import (
    TOKEN_SIZE,
    build_corpus,
    make_batch,
    make_windows,
)

CPU = torch.device("cpu")
NUM_STEPS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, pl.DataFrame]:
    store, _, corpus = build_corpus(tmp_path_factory.mktemp("batches"))
    return store, corpus.with_columns(weight=pl.lit(1.0))


@pytest.fixture
def dataset(corpus: tuple[Store, pl.DataFrame]) -> WindowDataset:
    layout = TokenLayout(token_size=TOKEN_SIZE)
    return WindowDataset(
        *corpus, layout=layout, window_size=9, batch_size=4, num_steps=NUM_STEPS, seed=0
    )


def assert_equal(one: Windows, other: Windows) -> None:
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize("start", [0, 5, NUM_STEPS - 1, NUM_STEPS])
def test_a_run_of_batches_is_what_the_steps_give(dataset: WindowDataset, start: int) -> None:
    count = 0
    for step, batch in enumerate(iterate_batches(dataset, start, NUM_STEPS), start):
        assert_equal(to_windows(batch, CPU), to_windows(dataset[step], CPU))
        count += 1
    assert count == NUM_STEPS - start


def test_windows_stay_when_their_batch_is_overwritten(dataset: WindowDataset) -> None:
    kept = [to_windows(batch, CPU) for batch in iterate_batches(dataset, 0, NUM_STEPS)]
    for step, windows in enumerate(kept):
        assert_equal(windows, to_windows(dataset[step], CPU))


def test_two_buffers_take_turns(dataset: WindowDataset) -> None:
    places = [batch.data.ctypes.data for batch in iterate_batches(dataset, 0, NUM_STEPS)]
    assert len(set(places)) == 2
    assert places[0::2] == places[:1] * (NUM_STEPS // 2)


def test_a_batch_that_cannot_be_read_ends_the_run(dataset: WindowDataset) -> None:
    batches = iterate_batches(dataset, NUM_STEPS - 1, NUM_STEPS + 3)
    assert num_real_tokens(next(batches)) > 0
    with pytest.raises(IndexError, match=f"there are {NUM_STEPS} steps"):
        next(batches)


def test_several_processes_together_give_the_windows_of_one(
    corpus: tuple[Store, pl.DataFrame], dataset: WindowDataset
) -> None:
    layout = TokenLayout(token_size=TOKEN_SIZE)
    shares = [
        WindowDataset(
            *corpus, layout=layout, window_size=9, batch_size=4, num_steps=NUM_STEPS, seed=0,
            rank=rank, num_processes=2,
        )
        for rank in range(2)
    ]  # fmt: skip
    for step in range(NUM_STEPS):
        parts = [to_windows(share[step], CPU) for share in shares]
        together = Windows(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
        assert_equal(together, to_windows(dataset[step], CPU))


def test_the_tests_own_batches_expand_to_what_they_were_made_from() -> None:
    windows = make_windows(batch=4, window=9, seed=3)
    batch: WindowBatch = make_batch(windows)
    real = windows.mask.any(dim=-1)
    assert num_real_tokens(batch) == int(real.sum())
    given = to_windows(batch, CPU)
    assert torch.equal(given.positions[real], windows.positions[real])
    assert_equal(given._replace(positions=windows.positions), windows)
    assert batch.data.dtype == np.uint8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_page_locked_buffers_are_not_overwritten_while_they_are_copied(
    dataset: WindowDataset, tmp_path: Path
) -> None:
    device = torch.device("cuda")
    kept = [
        to_windows(batch, device) for batch in iterate_batches(dataset, 0, NUM_STEPS, device=device)
    ]
    for step, windows in enumerate(kept):
        assert_equal(Windows(*(part.cpu() for part in windows)), to_windows(dataset[step], CPU))
