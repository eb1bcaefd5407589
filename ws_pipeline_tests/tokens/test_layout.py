"""Layouts: tokens, masks and positions follow from rows and columns, for both kinds of cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.layout import (
    TokenIndex,
    TokenLayout,
    join_tokens,
    num_layer_tokens,
    split_tokens,
)

LAYOUTS = st.tuples(st.sampled_from(["dense", "sliced"]), st.integers(1, 9))
SHAPES = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 12)), min_size=1, max_size=5)


def test_dense_pads_only_the_last_token_of_a_layer() -> None:
    layout = TokenLayout(kind="dense", token_size=4)
    tokens = split_tokens(layout, np.arange(1, 7), 2, 3)
    np.testing.assert_array_equal(tokens, [[1, 2, 3, 4], [5, 6, 0, 0]])


def test_sliced_pads_the_last_token_of_every_row() -> None:
    layout = TokenLayout(kind="sliced", token_size=2)
    tokens = split_tokens(layout, np.arange(1, 7), 2, 3)
    np.testing.assert_array_equal(tokens, [[1, 2], [3, 0], [4, 5], [6, 0]])
    assert num_layer_tokens(layout, 2, 3) == 4


@given(LAYOUTS, st.integers(1, 8), st.integers(1, 12))
def test_joining_undoes_splitting(kind: tuple[str, int], rows: int, cols: int) -> None:
    layout = TokenLayout(kind=kind[0], token_size=kind[1])  # type: ignore[arg-type]
    values = np.arange(1, rows * cols + 1, dtype=np.float32)
    tokens = split_tokens(layout, values, rows, cols)
    assert tokens.shape == (num_layer_tokens(layout, rows, cols), layout.token_size)
    np.testing.assert_array_equal(join_tokens(layout, tokens, rows, cols), values)


@given(LAYOUTS, SHAPES, st.data())
def test_the_arithmetic_agrees_with_cutting_every_layer(
    kind: tuple[str, int], shapes: list[tuple[int, int]], data: st.DataObject
) -> None:
    layout = TokenLayout(kind=kind[0], token_size=kind[1])  # type: ignore[arg-type]
    index = TokenIndex(layout, shapes)
    # Number every value of every layer from 1 on: what is zero is padding, what is not says where.
    cut = [split_tokens(layout, np.arange(1, rows * cols + 1), rows, cols) for rows, cols in shapes]
    tokens = np.concatenate(cut)
    assert index.num_tokens == len(tokens)
    start = data.draw(st.integers(0, len(tokens)))
    stop = data.draw(st.integers(start, len(tokens)))
    mask = index.mask(start, stop)
    np.testing.assert_array_equal(mask, tokens[start:stop] != 0)
    np.testing.assert_array_equal(index.lengths(start, stop), mask.sum(axis=1))
    np.testing.assert_array_equal(index.offsets(start, stop) + 1, tokens[start:stop, 0])
    positions = index.positions(start, stop)
    layers = np.concatenate([np.full(len(part), place) for place, part in enumerate(cut)])
    within = np.concatenate([np.arange(len(part)) for part in cut])
    expected = np.stack([np.arange(len(tokens)), layers, within], axis=1)[start:stop]
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_array_equal(index.layer_of(start, stop), layers[start:stop])


def test_positions_of_a_model_with_billions_of_tokens_need_no_table() -> None:
    index = TokenIndex(TokenLayout(token_size=64), [(2**20, 2**20), (3, 5)])
    last = index.num_tokens - 1
    np.testing.assert_array_equal(index.positions(last, last + 1), [[2**34, 1, 0]])
    assert index.lengths(last, last + 1).tolist() == [15]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_size": 0}, r"TokenLayout\.token_size must be within \[1, 65536\], it is 0"),
        ({"token_size": 10**6}, "it is 1000000"),
    ],
)
def test_a_layout_out_of_bounds_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenLayout(**change)  # type: ignore[arg-type]
