"""The layer table: where tokens and values lie follows from rows and columns, for both cuts."""

from typing import Literal

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.tokens.layer_table import DTYPES, LayerTable
from ws_pipeline.tokens.layout import TokenLayout, split_tokens
from ws_pipeline.tokens.records import TOKEN_LAYER_STRUCT, TokenLayer, token_layer_to_record

KINDS: st.SearchStrategy[Literal["dense", "sliced"]] = st.sampled_from(["dense", "sliced"])
SHAPES = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 12)), min_size=1, max_size=5)


def make_layers(shapes: list[tuple[int, int]], dtype: str = "F32") -> list[TokenLayer]:
    sizes = [rows * cols for rows, cols in shapes]
    offsets = np.cumsum([0, *sizes[:-1]])
    return [
        TokenLayer(
            name=f"layer{index}", role="linear", block=-1, depth=0.0, dtype=dtype,
            offset=int(offset), rows=rows, cols=cols, scale_exponent=index, mean=0.5, std=1.0,
        )
        for index, ((rows, cols), offset) in enumerate(zip(shapes, offsets, strict=True))
    ]  # fmt: skip


@given(KINDS, st.integers(1, 9), SHAPES)
def test_the_arithmetic_agrees_with_cutting_every_layer(
    kind: Literal["dense", "sliced"], token_size: int, shapes: list[tuple[int, int]]
) -> None:
    layout = TokenLayout(kind=kind, token_size=token_size)
    table = LayerTable.of_model(make_layers(shapes), layout)
    # Number every value of every layer from 1 on: the first of each token says where it lies.
    cut = [split_tokens(layout, np.arange(1, r * c + 1), r, c) for r, c in shapes]
    layers = np.repeat(np.arange(len(cut)), [len(part) for part in cut])
    assert table.num_tokens.tolist() == [len(layers)]
    np.testing.assert_array_equal(table.layer_of(np.arange(len(layers))), layers)
    for layer, part in enumerate(cut):
        places = np.arange(len(part) + 1)
        values = table.value_of(np.full(len(places), layer), places)
        np.testing.assert_array_equal(values[:-1] + 1, part[:, 0])
        assert values[-1] == shapes[layer][0] * shapes[layer][1]


def test_positions_of_a_model_with_billions_of_tokens_are_exact() -> None:
    table = LayerTable.of_model(make_layers([(2**20, 2**20), (3, 5)]), TokenLayout(token_size=64))
    assert table.num_tokens.tolist() == [2**34 + 1]
    assert table.layer_of(np.array([2**34 - 1, 2**34])).tolist() == [0, 1]


@given(st.lists(SHAPES, min_size=1, max_size=4))
def test_a_corpus_is_its_models_one_behind_the_other(
    models: list[list[tuple[int, int]]],
) -> None:
    layout = TokenLayout(token_size=5)
    records = [[token_layer_to_record(layer) for layer in make_layers(shapes)] for shapes in models]
    corpus = pl.DataFrame({"layers": records}, schema={"layers": pl.List(TOKEN_LAYER_STRUCT)})
    whole = LayerTable.of_corpus(corpus, layout)
    joined = LayerTable.join([LayerTable.of_model(make_layers(each), layout) for each in models])
    assert whole.num_models == len(models)
    for name in LayerTable.__slots__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(joined, name), err_msg=name)


def test_a_model_without_layers_keeps_its_row() -> None:
    records = [[], [token_layer_to_record(make_layers([(2, 3)], "BF16")[0])], None]
    corpus = pl.DataFrame({"layers": records}, schema={"layers": pl.List(TOKEN_LAYER_STRUCT)})
    table = LayerTable.of_corpus(corpus, TokenLayout(token_size=4))
    assert table.num_tokens.tolist() == [0, 2, 0]
    assert DTYPES[table.dtypes[0]] == "BF16"
