import re
from pathlib import Path

import numpy as np

from ws_pipeline.backbone.embedding_blocks import (
    BLOCK_SIZES,
    EMBEDDING_SIZE,
    END_GAIN,
    code_latents,
    describe_weights,
    join_blocks,
    split_blocks,
)
from ws_pipeline.weights.end_sketches import sketch_model
from ws_pipeline.weights.layer_matrix import LayerMatrix
from ws_pipeline.weights.pooling import pool_layers
from ws_pipeline.weights.spectra import describe_layer

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"


def network() -> list[LayerMatrix]:
    rng = np.random.default_rng(0)
    shapes = [(9, 5), (7, 10), (3, 8)]
    return [LayerMatrix(name="a", role="linear", values=rng.normal(size=s)) for s in shapes]


def test_weights_are_described_in_one_pass_over_the_layers():
    found = describe_weights(iter(network()))
    expected = [describe_layer(layer.values) for layer in network()]
    np.testing.assert_array_equal(found.spectra, expected)
    np.testing.assert_array_equal(found.ends, sketch_model(network()))


def test_every_block_is_found_where_it_was_put():
    described = describe_weights(network())
    latents = np.random.default_rng(1).normal(size=(3, 11))
    means = np.random.default_rng(2).normal(size=(3, 4))
    vector = join_blocks(latents, described, means)
    blocks = split_blocks(vector)
    assert {name: len(block) for name, block in blocks.items()} == BLOCK_SIZES
    np.testing.assert_allclose(blocks["end_sketches"], END_GAIN * described.ends)
    other = split_blocks(join_blocks(latents + 1, described, means))
    np.testing.assert_array_equal(other["spectra"], blocks["spectra"])
    assert (other["latents"] != blocks["latents"]).any()
    np.testing.assert_array_equal(other["latent_code"], code_latents(means))


def test_a_code_keeps_distances_about_as_they_are():
    rng = np.random.default_rng(3)
    means = rng.normal(size=(200, 5, 32))
    codes = np.array([code_latents(each) for each in means])
    pooled = np.array([pool_layers(each) for each in means])
    of_codes = np.linalg.norm(codes[::2] - codes[1::2], axis=1)
    of_pooled = np.linalg.norm(pooled[::2] - pooled[1::2], axis=1)
    ratio = of_codes / of_pooled
    assert 0.9 < np.median(ratio) < 1.1
    assert ratio.std() < 0.3


def test_the_documented_columns_are_those_of_the_code():
    rows = re.findall(r"\| `(\w+)` \| (\d+) to (\d+) \|", FORMATS.read_text(encoding="utf-8"))
    bounds = [0, *np.cumsum(list(BLOCK_SIZES.values())).tolist()]
    expected = zip(BLOCK_SIZES, bounds[:-1], bounds[1:], strict=True)
    assert [(name, int(first), int(last)) for name, first, last in rows] == [
        (name, start, stop - 1) for name, start, stop in expected
    ]
    assert f"has {EMBEDDING_SIZE} numbers" in FORMATS.read_text(encoding="utf-8")
