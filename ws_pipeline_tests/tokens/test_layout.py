"""Layouts: two ways to cut a layer, each with its inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.layout import (
    TokenLayout,
    join_tokens,
    num_layer_tokens,
    split_tokens,
)

LAYOUTS = st.tuples(st.sampled_from(["dense", "sliced"]), st.integers(1, 9))


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
