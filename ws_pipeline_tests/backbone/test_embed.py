from pathlib import Path

import numpy as np
import pytest
import torch

from ws_pipeline.backbone.embed import EMBEDDING_SCHEMA, embed_checkpoint, embed_models
from ws_pipeline.backbone.expansion import to_windows
from ws_pipeline.backbone.model import Backbone, untrained
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.windows import ModelTokens, read_windows
from ws_pipeline_tests.backbone.test_model import spread_out
from ws_pipeline_tests.backbone.tiny_corpus import TINY, TOKEN_SIZE, TokenLayout, build_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("corpus")
    store, _, rows = build_corpus(root)
    return root, store, rows


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return spread_out(untrained(TINY, 0))


def test_one_row_per_model_and_one_vector_per_layer(corpus, backbone):
    _, store, rows = corpus
    frame = embed_models(backbone, store, rows)
    assert dict(frame.schema) == EMBEDDING_SCHEMA
    assert frame["hub_id"].to_list() == rows["hub_id"].to_list()
    assert set(frame["embedding"].list.len()) == {2 * TINY.latent_size}
    layers = frame["layers"].to_list()[0]
    assert [layer["name"] for layer in layers] == ["first.weight", "second.weight"]
    assert {len(layer["embedding"]) for layer in layers} == {2 * TINY.latent_size}


def test_the_embedding_averages_mean_and_std_of_the_layers_token_latents(corpus, backbone):
    _, store, rows = corpus
    row = rows.to_dicts()[1]
    model = ModelTokens.open(store, row, TokenLayout(token_size=TOKEN_SIZE))
    read = read_windows([model], [(0, model.num_tokens)], window_size=model.num_tokens)
    whole = to_windows(read, torch.device("cpu"))
    with torch.no_grad():
        latents = backbone.encode(*whole)[0].numpy()
    parts = [latents[whole.positions[0, :, 1].numpy() == layer] for layer in (0, 1)]
    vectors = [np.concatenate((part.mean(axis=0), part.std(axis=0))) for part in parts]
    expected = np.mean(vectors, axis=0)
    frame = embed_models(backbone, store, rows, window=1024)
    # The default precision is bf16 where the CPU has it: 8 bits of mantissa.
    np.testing.assert_allclose(frame["embedding"].to_list()[1], expected, rtol=0.05, atol=0.05)


def test_the_vector_does_not_depend_on_the_company(corpus, backbone):
    _, store, rows = corpus
    together = embed_models(backbone, store, rows, window=16, halo=2)
    alone = embed_models(backbone, store, rows[2:3], window=16, halo=2)
    np.testing.assert_allclose(
        together["embedding"].to_list()[2], alone["embedding"].to_list()[0], rtol=0.02, atol=0.02
    )


def test_no_rows_give_an_empty_frame(corpus, backbone):
    _, store, rows = corpus
    assert embed_models(backbone, store, rows.clear()).height == 0


def test_a_checkpoint_from_disk_has_the_corpus_vector(corpus, backbone):
    root, store, rows = corpus
    record = embed_checkpoint(backbone, root / "repos" / "model-3" / "model.safetensors")
    frame = embed_models(backbone, store, rows[3:4])
    assert record["repo_id"].endswith("model.safetensors")
    np.testing.assert_allclose(
        record["embedding"], frame["embedding"].to_list()[0], rtol=1e-4, atol=1e-5
    )
    assert [layer["name"] for layer in record["layers"]] == ["first.weight", "second.weight"]


def test_a_missing_shard_is_an_error_not_a_zero(corpus, backbone, tmp_path: Path):
    _, _, rows = corpus
    with pytest.raises(Exception, match="blob"):
        embed_models(backbone, Store.open(tmp_path / "empty"), rows)
