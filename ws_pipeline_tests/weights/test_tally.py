"""A compiled tally: what numpy finds in many passes, for any bits, on any machine."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ws_pipeline.weights.tally import NUM_BRACKETS, Tally, count_values

Values = np.ndarray  # type: ignore[type-arg]

FLOATS = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        # Words of 64 numbers, and what is left of one.
        st.sampled_from([1, 2, 63, 64, 65, 127, 128, 200]),
        elements=st.floats(width=8 * np.dtype(dtype).itemsize, allow_subnormal=True)
        | st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]),
    )
)


def brackets_of(values: Values, data: st.DataObject) -> tuple[Values, Values]:
    """Disjoint brackets between numbers that are there."""
    numbers = np.unique(values[np.isfinite(values)])
    if not numbers.size:
        return np.empty((2, 0), values.dtype)
    chosen = data.draw(st.lists(st.sampled_from(numbers.tolist()), max_size=8, unique=True))
    edges = np.sort(np.array(chosen, values.dtype))
    pairs = edges[: edges.size // 2 * 2].reshape(-1, 2)
    lows, highs = pairs[:, 0].copy(), pairs[:, 1].copy()
    if len(highs) and data.draw(st.booleans()):
        highs[-1] = lows[-1]  # a bracket of one value
    return lows, highs


@given(FLOATS, st.data())
def test_counts_members_and_ends_are_those_of_numpy(values: Values, data: st.DataObject) -> None:
    lows, highs = brackets_of(values, data)
    tally = Tally(lows, highs, shift=0.0)
    cut = data.draw(st.integers(0, values.size - 1))
    members: list[Values] = []
    with np.errstate(all="ignore"):
        members += [tally.add(part)[2].copy() for part in (values[:cut], values[cut:]) if part.size]
    assert tally.brackets() == [
        (float(low), float(high), int((values < low).sum()), int((values <= high).sum()))
        for low, high in zip(lows, highs, strict=True)
    ] + [(np.inf, np.inf, int((values < np.inf).sum()), int((values <= np.inf).sum()))] * (
        NUM_BRACKETS - len(lows)
    )
    wide = [(low, high) for low, high in zip(lows, highs, strict=True) if low < high]
    inside = np.zeros(values.size, np.bool_)
    for low, high in wide:
        inside |= (values >= low) & (values <= high)
    np.testing.assert_array_equal(np.concatenate(members), values[inside])
    expected = (values.min(), values.max())  # NaN if there is one
    np.testing.assert_array_equal(tally.range, expected)


@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(-10, 10),
)
def test_moments_are_those_of_numpy_whatever_the_shift(values: Values, shift: float) -> None:
    none = np.empty((2, 0), np.float32)
    mean, squares, _ = Tally(*none, shift=shift).add(values)
    wide = values.astype(np.float64)
    reach = np.abs(wide).max() + abs(shift)
    assert mean == pytest.approx(wide.mean(), abs=1e-14 * reach)
    assert squares / wide.size == pytest.approx(wide.var(), abs=1e-13 * reach**2)


@pytest.mark.parametrize("number", [0.1, -3e38, 1e-45, 0.0])
def test_a_constant_has_no_spread_at_all(number: float) -> None:
    values = np.full(1000, number, np.float32)
    none = np.empty((2, 0), np.float32)
    mean, squares, _ = Tally(*none, shift=float(values[0])).add(values)
    assert (mean, squares) == (float(values[0]), 0.0)


@given(st.sampled_from([np.uint8, np.uint16]), st.data())
def test_values_are_counted_one_by_one(dtype: type, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(dtype, st.integers(0, 100)))
    counts = np.ones(np.iinfo(dtype).max + 1, np.int64)
    count_values(values, counts)
    np.testing.assert_array_equal(counts - 1, np.bincount(values, minlength=counts.size))


def test_what_is_read_only_or_not_contiguous_is_taken_too() -> None:
    values = np.arange(400, dtype=np.float32)
    none = np.empty((2, 0), np.float32)
    expected = Tally(*none, shift=1.0).add(values[::2].copy())[:2]
    values.setflags(write=False)
    assert Tally(*none, shift=1.0).add(values[::2])[:2] == expected


SCRIPT = """
import json, numpy as np
from ws_pipeline.weights import tally as loops
values = np.random.default_rng(0).standard_normal(5003).astype(np.float32)
edges = np.sort(values)[[100, 1000, 2500]], np.sort(values)[[200, 1300, 2600]]
tally = loops.Tally(*edges, shift=0.25)
mean, squares, members = tally.add(values)
print(json.dumps([mean.hex(), squares.hex(), tally.brackets(), tally.range, members.tolist(),
                  loops._tally.stats.cache_path]))
"""


def tally_elsewhere(variables: dict[str, str]) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | variables, check=True, timeout=250,
        capture_output=True, text=True,
    )  # fmt: skip
    return list(json.loads(done.stdout))


def test_a_machine_without_wide_registers_or_a_place_for_the_cache_finds_the_same_bits() -> None:
    *here, place = tally_elsewhere({})
    # A processor of 2003; and where this locator alone may answer, nothing can be written.
    old = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
    *there, no_place = tally_elsewhere(old | nowhere)
    assert there == here
    assert place
    assert not no_place
