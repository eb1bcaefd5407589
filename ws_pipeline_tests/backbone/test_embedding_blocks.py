import re
from pathlib import Path

import numpy as np

from ws_pipeline.backbone.embedding_blocks import (
    BLOCK_SIZES,
    EMBEDDING_SIZE,
    END_GAIN,
    describe_weights,
    join_blocks,
    split_blocks,
)
from ws_pipeline.weights.end_sketches import sketch_model
from ws_pipeline.weights.layer_matrix import LayerMatrix
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
    vector = join_blocks(latents, described)
    blocks = split_blocks(vector)
    assert {name: len(block) for name, block in blocks.items()} == BLOCK_SIZES
    np.testing.assert_allclose(blocks["end_sketches"], END_GAIN * described.ends)
    other = split_blocks(join_blocks(latents + 1, described))
    np.testing.assert_array_equal(other["spectra"], blocks["spectra"])
    assert (other["latents"] != blocks["latents"]).any()


def test_the_documented_columns_are_those_of_the_code():
    rows = re.findall(r"\| `(\w+)` \| (\d+) to (\d+) \|", FORMATS.read_text(encoding="utf-8"))
    bounds = [0, *np.cumsum(list(BLOCK_SIZES.values())).tolist()]
    expected = zip(BLOCK_SIZES, bounds[:-1], bounds[1:], strict=True)
    assert [(name, int(first), int(last)) for name, first, last in rows] == [
        (name, start, stop - 1) for name, start, stop in expected
    ]
    assert f"has {EMBEDDING_SIZE} numbers" in FORMATS.read_text(encoding="utf-8")
