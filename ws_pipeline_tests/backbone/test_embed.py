from pathlib import Path

import numpy as np
import pytest
import torch

from ws_pipeline.backbone.embed import (
    EMBEDDING_SCHEMA,
    POOLING,
    embed_checkpoint,
    embed_models,
    layer_size,
    model_size,
    pool_layers,
)
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
    assert set(frame["embedding"].list.len()) == {model_size(TINY.latent_size)}
    layers = frame["layers"].to_list()[0]
    assert [layer["name"] for layer in layers] == ["layers.0.weight", "layers.1.weight"]
    assert {len(layer["embedding"]) for layer in layers} == {layer_size(TINY.latent_size)}


def test_a_layers_vector_is_mean_and_std_of_its_latents_and_its_scale(corpus, backbone):
    _, store, rows = corpus
    row = rows.to_dicts()[1]
    model = ModelTokens.open(store, row, TokenLayout(token_size=TOKEN_SIZE))
    read = read_windows([model], [(0, model.num_tokens)], window_size=model.num_tokens)
    whole = to_windows(read, torch.device("cpu"))
    with torch.no_grad():
        latents = backbone.encode(*whole)[0].numpy()
    vectors = []
    for index, layer in enumerate(row["layers"]):
        part = latents[whole.positions[0, :, 1].numpy() == index]
        ratio = layer["mean"] / layer["std"]
        scale = (ratio / (1 + abs(ratio)), (np.log(layer["std"]) + 1) / 3)
        vectors.append(np.concatenate((part.mean(axis=0), part.std(axis=0), scale)))
    frame = embed_models(backbone, store, rows[1:2], window=1024)
    # The default precision is bf16 where the CPU has it: 8 bits of mantissa.
    for layer, vector in zip(frame["layers"].to_list()[0], vectors, strict=True):
        np.testing.assert_allclose(layer["embedding"], vector, rtol=0.05, atol=0.05)
        np.testing.assert_allclose(layer["embedding"][-2:], vector[-2:], rtol=1e-5)


def test_a_models_vector_is_six_statistics_of_its_layers(corpus, backbone):
    _, store, rows = corpus
    record = embed_models(backbone, store, rows[:1]).to_dicts()[0]
    layers = np.array([layer["embedding"] for layer in record["layers"]])
    parts = [np.mean, np.std, np.min, np.max]
    expected = [part(layers, axis=0) for part in parts] + [layers[0], layers[-1]]
    assert len(expected) == len(POOLING)
    np.testing.assert_allclose(record["embedding"], np.concatenate(expected), rtol=1e-5, atol=1e-6)


def test_pooling_no_layers_gives_zeros():
    assert pool_layers(np.zeros((0, 5))).tolist() == [0.0] * 30


def test_models_of_one_shape_and_another_scale_have_other_vectors(tmp_path, backbone):
    from safetensors.torch import save_file

    vectors = []
    for factor in (1.0, 16.0):
        path = tmp_path / f"{factor}.safetensors"
        weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
        save_file({"a.weight": factor * weight, "b.weight": weight.clone()}, path)
        vectors.append(np.array(embed_checkpoint(backbone, path)["embedding"]))
    assert np.abs(vectors[0] - vectors[1]).max() > 0.5


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
    assert [layer["name"] for layer in record["layers"]] == ["layers.0.weight", "layers.1.weight"]


def test_a_missing_shard_is_an_error_not_a_zero(corpus, backbone, tmp_path: Path):
    _, _, rows = corpus
    with pytest.raises(Exception, match="blob"):
        embed_models(backbone, Store.open(tmp_path / "empty"), rows)
