"""Samples of models are bounded, spread and always the same."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.zoo.samples import NUM_RELATIVES, sample_evenly, sample_relatives


@given(st.integers(0, 300), st.integers(1, 100))
def test_places_are_spread_evenly(count: int, limit: int) -> None:
    places = sample_evenly(count, limit)
    assert len(places) == min(count, limit)
    assert places == sorted(set(places))
    steps = {later - earlier for earlier, later in pairwise(places)}
    assert max(steps, default=0) - min(steps, default=0) <= 1


@given(st.lists(st.sampled_from("abcdef"), max_size=120), st.integers(NUM_RELATIVES, 60))
def test_a_sample_of_relatives_is_bounded_and_holds_places_once(
    roots: list[str], limit: int
) -> None:
    places = sample_relatives(roots, limit)
    assert len(places) <= limit
    assert places == sorted(set(places))
    assert set(places) <= set(range(len(roots)))
    assert len(places) == len(roots) or len(places) > 0


def test_checkpoints_of_one_model_stay_together_where_few_of_many_are_taken() -> None:
    roots = [str(place // 6) for place in range(7_680)]
    places = sample_relatives(roots, 1_000)
    taken = [roots[place] for place in places]
    assert len(places) == 750
    assert {taken.count(root) for root in set(taken)} == {6}
    assert int(taken[-1]) > 1_200
