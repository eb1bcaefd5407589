from itertools import pairwise

import numpy as np
import pytest

from ws_pipeline.tokens.layer_matrices import (
    MAX_BLOCKS,
    plan_sample,
    read_matrices,
    sample_matrices,
)
from ws_pipeline.tokens.layer_table import DTYPES
from ws_pipeline.tokens.records import TokenLayer


class Doubles:
    """Values of one float64 run."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values.ravel()

    def read_into(self, dtype: int, start: int, out: memoryview) -> None:
        assert DTYPES[dtype] == "F64"
        target = np.frombuffer(out, dtype=np.float64)
        target[:] = self.values[start : start + len(target)]


def layer_of(rows: int, cols: int, exponent: int = 0) -> TokenLayer:
    return TokenLayer(
        name="a",
        role="linear",
        block=-1,
        depth=0.0,
        dtype="F64",
        offset=5,
        rows=rows,
        cols=cols,
        scale_exponent=exponent,
        mean=0.0,
        std=1.0,
    )


def test_a_small_layer_is_sampled_whole_in_float32():
    values = np.random.default_rng(0).normal(size=(6, 7))
    stored = Doubles(np.concatenate([np.zeros(5), values.ravel()]))
    layer = layer_of(6, 7, exponent=3)
    (whole,) = read_matrices(stored, [layer])
    (sample,) = sample_matrices(stored, [layer])
    np.testing.assert_array_equal(whole.values, 8 * values)
    np.testing.assert_array_equal(sample.values, (8 * values).astype(np.float32))


@pytest.mark.parametrize(("rows", "cols", "most"), [(50, 7, 90), (3, 100, 60), (5_000, 2, 9_000)])
def test_a_large_layer_is_sampled_in_runs_of_its_own_rows(rows, cols, most):
    values = np.arange(rows * cols, dtype=np.float64).reshape(rows, cols)
    stored = Doubles(np.concatenate([np.zeros(5), values.ravel()]))
    (sample,) = sample_matrices(stored, [layer_of(rows, cols)], most=most)
    assert most / 2 < sample.values.size <= most
    kept = min(cols, most)
    found = (sample.values[:, 0] / cols).astype(int)
    assert len(set(found)) == len(found)
    np.testing.assert_array_equal(sample.values, values[found, :kept])


@pytest.mark.parametrize("rows", [1, 1_000, 10**9])
def test_a_sample_takes_a_bounded_number_of_reads(rows):
    runs = plan_sample(rows, 3, 2**20)
    assert len(runs) <= MAX_BLOCKS
    assert all(0 <= start < stop <= rows for start, stop in runs)
    assert all(one[1] <= other[0] for one, other in pairwise(runs))
