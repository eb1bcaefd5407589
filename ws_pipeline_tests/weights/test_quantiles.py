"""Ranks: those of a full sort, whatever the sample says and however often values repeat."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ws_pipeline.weights import quantiles
from ws_pipeline.weights.quantiles import MIN_BRACKETED, RankCounter, count_ranks, select_ranks
from ws_pipeline.weights.values import ArrayValues

SIZE = 3 * MIN_BRACKETED + 5
RANKS = [0, 1, SIZE // 100, SIZE // 4, SIZE // 2, SIZE // 2 + 1, SIZE - 2, SIZE - 1]


def expected(values: np.ndarray, ranks: list[int]) -> dict[int, float]:  # type: ignore[type-arg]
    ordered = np.sort(values)
    return {rank: float(ordered[rank]) for rank in ranks}


def shaped(kind: str) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(SIZE).astype(np.float32)
    return {
        "normal": normal,
        "ascending": np.sort(normal),
        "constant": np.full(SIZE, -0.5, np.float32),
        "two_values": np.where(normal > 0, np.float32(1), np.float32(-1)),
        "mostly_zero": np.where(normal > 1.5, normal, np.float32(0)),
        "few_values": rng.integers(-3, 4, SIZE).astype(np.float32),
        "all_magnitudes": (normal * 10.0 ** rng.integers(-38, 38, SIZE)).astype(np.float32),
        "heavy_tail": rng.standard_cauchy(SIZE).astype(np.float32),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["normal", "ascending", "constant", "two_values", "mostly_zero", "few_values",
     "all_magnitudes", "heavy_tail"],
)  # fmt: skip
def test_ranks_of_any_distribution_are_those_of_a_sort(kind: str) -> None:
    values = shaped(kind)
    assert select_ranks(ArrayValues(values), RANKS) == expected(values, RANKS)
    assert count_ranks(ArrayValues(values), RANKS) == expected(values, RANKS)
    # Numbers whose last 29 bits are not zero, as those of a float32 would be.
    wide = values.astype(np.float64) / 3
    assert select_ranks(ArrayValues(wide), RANKS) == expected(wide, RANKS)
    assert count_ranks(ArrayValues(wide), RANKS) == expected(wide, RANKS)


class MisleadingValues(ArrayValues):
    """Values whose sample says nothing true of them."""

    num_passes = 0

    def sample(self, count: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.linspace(50, 60, 512, dtype=np.float32)  # all above

    def chunks(self):  # type: ignore[no-untyped-def]
        self.num_passes += 1
        return super().chunks()


def test_a_sample_that_misleads_costs_passes_and_no_exactness() -> None:
    values = shaped("normal")
    misleading = MisleadingValues(values)
    ranks = [SIZE // 4, SIZE // 2]
    assert select_ranks(misleading, ranks) == expected(values, ranks)
    assert misleading.num_passes == 4  # brackets, wide brackets, two halves of the bits


def test_more_members_than_may_be_kept_are_counted_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantiles, "MAX_MEMBERS", 100)
    values = shaped("normal")
    counter = RankCounter(ArrayValues(values), RANKS)
    for chunk in ArrayValues(values).chunks():
        counter.add(chunk)
    assert sum(kept.size for kept in counter._members) < SIZE // 2
    assert counter.finish() == expected(values, RANKS)


@given(hnp.arrays(np.uint32, st.integers(1, 300)), st.data())
def test_any_bit_patterns_are_ranked_alike_however_they_are_selected(
    bits: np.ndarray,  # type: ignore[type-arg]
    data: st.DataObject,
) -> None:
    values = bits.view(np.float32)
    values = np.where(np.isfinite(values), values, np.float32(1.0))
    ranks = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1))
    assert select_ranks(ArrayValues(values), ranks) == expected(values, ranks)
    assert count_ranks(ArrayValues(values), ranks) == expected(values, ranks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantiles, "MIN_BRACKETED", 32)
        assert select_ranks(ArrayValues(values), ranks) == expected(values, ranks)
