from pathlib import Path

import numpy as np
import pytest
import torch

from ws_pipeline.backbone.embed import (
    EMBEDDING_SCHEMA,
    embed_checkpoint,
    embed_models,
    layer_size,
)
from ws_pipeline.backbone.embedding_blocks import EMBEDDING_SIZE, split_blocks
from ws_pipeline.backbone.expansion import to_windows
from ws_pipeline.backbone.model import Backbone, untrained
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_matrices import read_matrices
from ws_pipeline.tokens.windows import ModelTokens, read_windows
from ws_pipeline.weights.spectra import describe_layer
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
    assert set(frame["embedding"].list.len()) == {EMBEDDING_SIZE}
    layers = frame["layers"].to_list()[0]
    assert [layer["name"] for layer in layers] == ["layers.0.weight", "layers.1.weight"]
    assert {len(layer["embedding"]) for layer in layers} == {layer_size(TINY.latent_size)}


def test_a_layers_vector_is_mean_and_std_of_its_latents_its_scale_and_spectrum(corpus, backbone):
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
    spectra = [describe_layer(each.values) for each in read_matrices(model.values, model.layers)]
    frame = embed_models(backbone, store, rows[1:2], window=1024)
    # The default precision is bf16 where the CPU has it: 8 bits of mantissa.
    for layer, vector, spectrum in zip(frame["layers"].to_list()[0], vectors, spectra, strict=True):
        learned, measured = np.split(np.array(layer["embedding"]), [len(vector)])
        np.testing.assert_allclose(learned, vector, rtol=0.05, atol=0.05)
        np.testing.assert_allclose(learned[-2:], vector[-2:], rtol=1e-5)
        np.testing.assert_allclose(measured, spectrum, rtol=1e-5)


def test_backbones_differ_in_the_block_of_latents_alone(corpus, backbone):
    _, store, rows = corpus
    other = untrained(TINY, 1)
    ours, theirs = (
        split_blocks(np.array(embed_models(each, store, rows)["embedding"].to_list()))
        for each in (backbone, other)
    )
    assert np.abs(ours["latents"] - theirs["latents"]).max() > 0.01
    np.testing.assert_array_equal(ours["spectra"], theirs["spectra"])
    np.testing.assert_array_equal(ours["end_sketches"], theirs["end_sketches"])


@pytest.mark.parametrize(
    "tensors",
    [
        {"norm.weight": torch.ones(16), "norm.bias": torch.zeros(16)},
        {"a.weight": torch.randn(4, 6)},
        {"a.weight": torch.randn(4, 6, dtype=torch.float64) * 1e30},
        {"a.weight": torch.full((5, 5), 3.0), "b.weight": torch.zeros(2, 5)},
        {"embed.weight": torch.randn(300_000, 15)},
    ],
    ids=["norm", "one_layer", "float64", "constant", "table_beyond_the_sample"],
)
def test_unusual_models_have_finite_vectors(tmp_path, backbone, tensors):
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "model.safetensors")
    record = embed_checkpoint(backbone, tmp_path / "model.safetensors", window=512)
    assert len(record["embedding"]) == EMBEDDING_SIZE
    assert np.isfinite(record["embedding"]).all()
    assert np.abs(record["embedding"]).max() < 200
    assert all(np.isfinite(layer["embedding"]).all() for layer in record["layers"])


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
