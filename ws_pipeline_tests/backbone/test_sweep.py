import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.backbone.expansion import to_windows
from ws_pipeline.backbone.sweep import plan_chunks, sweep_models
from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.windows import ModelTokens, read_windows
from ws_pipeline_tests.backbone.tiny_corpus import TOKEN_SIZE, TokenLayout, build_corpus


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 19))
def test_kept_parts_tile_the_model_and_halos_surround_them(num_tokens, window, halo):
    if 2 * halo >= window:
        with pytest.raises(ConfigError, match=r"halo must lie in \[0, window / 2\)"):
            list(plan_chunks(0, num_tokens, window=window, halo=halo))
        return
    chunks = list(plan_chunks(0, num_tokens, window=window, halo=halo))
    kept = [i for chunk in chunks for i in range(chunk.keep_start, chunk.keep_stop)]
    assert kept == list(range(num_tokens))
    for chunk in chunks:
        assert 0 <= chunk.start <= chunk.keep_start < chunk.keep_stop <= chunk.stop <= num_tokens
        assert chunk.stop - chunk.start <= window
        assert chunk.keep_start - chunk.start in {0, min(halo, chunk.keep_start)}
        assert chunk.kept.stop - chunk.kept.start == chunk.keep_stop - chunk.keep_start


def test_a_model_that_fits_is_one_chunk_without_halo():
    (chunk,) = plan_chunks(3, 16, window=16, halo=4)
    assert (chunk.start, chunk.stop, chunk.keep_start, chunk.keep_stop) == (0, 16, 0, 16)


def test_a_sweep_reads_every_weight_of_every_model_once(tmp_path):
    store, _, corpus = build_corpus(tmp_path)
    layout = TokenLayout(token_size=TOKEN_SIZE)
    models = [ModelTokens.open(store, row, layout) for row in corpus.to_dicts()]
    seen = 0
    for batch in sweep_models(models, window=8, halo=2, device=torch.device("cpu")):
        for row, chunk in enumerate(batch.chunks):
            place = [(chunk.keep_start, chunk.keep_stop)]
            size = chunk.keep_stop - chunk.keep_start
            read = read_windows([models[chunk.model]], place, window_size=size)
            whole = to_windows(read, torch.device("cpu"))
            for part, expected in zip(batch.windows, whole, strict=True):
                assert torch.equal(part[row, chunk.kept], expected[0])
            seen += int(batch.windows.mask[row, chunk.kept].sum())
    assert seen == corpus["num_values"].sum()
