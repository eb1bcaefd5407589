"""Draws: every token of a model is equally likely; a window is a function of seed and number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ws_pipeline.errors import ConfigError
from ws_pipeline.tokens.draws import WindowDraws, place_windows


def draws(num_tokens: list[int], weights: list[float] | None = None, **changes: int) -> WindowDraws:
    settings = {"window_size": 4, "seed": 5} | changes
    ones = [1.0] * len(num_tokens) if weights is None else weights
    return WindowDraws(np.array(ones), np.array(num_tokens), **settings)


@given(st.integers(1, 60), st.integers(1, 20))
def test_every_token_lies_in_equally_many_of_the_windows_there_are(
    num_tokens: int, window: int
) -> None:
    places = num_tokens + window - 1
    uniform = (np.arange(places) + 0.5) / places  # one number for each window
    starts, stops = place_windows(np.full(places, num_tokens), uniform, window)
    assert (starts >= 0).all()
    assert (starts < stops).all()
    assert (stops <= num_tokens).all()
    assert (stops - starts <= window).all()
    seen = np.zeros(num_tokens, dtype=np.int64)
    for start, stop in zip(starts, stops, strict=True):
        seen[start:stop] += 1
    # The stated probability, exactly: window of n + window - 1; or always, if all of it fits.
    assert set(seen) == {places if num_tokens <= window else window}


def test_the_ends_of_the_unit_interval_stay_within_the_model() -> None:
    ends = np.array([0.0, 1.0 - 2.0**-53])
    for num_tokens in (9, 2**34 + 1, 3 * 2**33 + 7):
        starts, stops = place_windows(np.full(2, num_tokens), ends, 4)
        assert starts.tolist() == [0, num_tokens - 1]
        assert stops.tolist() == [1, num_tokens]


def test_drawn_tokens_are_uniform_within_a_model() -> None:
    num_tokens, window, count = 30, 4, 60_000
    spans = draws([num_tokens]).draw(0, count)
    seen = np.zeros(num_tokens)
    for start, stop in zip(spans.starts, spans.stops, strict=True):
        seen[start:stop] += 1
    assert seen.sum() / count == pytest.approx(num_tokens * window / 33, rel=0.01)
    # Starts are independent, tokens of a window are not: test the starts.
    first = np.where(spans.starts > 0, spans.starts, spans.stops - window)
    _, counts = np.unique(first, return_counts=True)
    assert len(counts) == num_tokens + window - 1
    assert chisquare(counts).pvalue > 0.01
    assert np.abs(seen / count - window / 33).max() < 0.01


def test_models_are_drawn_by_their_weights() -> None:
    spans = draws([9, 9, 9, 9], [0.0, 1.0, 3.0, 0.0]).draw(0, 20_000)
    assert set(spans.models) == {1, 2}
    counts = np.bincount(spans.models)[1:3]
    assert chisquare(counts, [5_000, 15_000]).pvalue > 0.01


def test_a_model_without_tokens_is_not_drawn() -> None:
    assert set(draws([0, 7, 0]).draw(0, 100).models) == {1}


@given(st.integers(0, 10**12), st.integers(1, 40), st.integers(0, 40))
def test_a_window_is_its_number_whatever_was_drawn_before(
    first: int, count: int, more: int
) -> None:
    together = draws([50, 90]).draw(first, count + more)
    again = draws([50, 90])
    again.draw(7, 3)
    for name in ("models", "starts", "stops"):
        parts = [getattr(again.draw(first, count), name)]
        if more:
            parts.append(getattr(again.draw(first + count, more), name))
        np.testing.assert_array_equal(np.concatenate(parts), getattr(together, name))


def test_seeds_differ() -> None:
    one, other = draws([500]).draw(0, 8), draws([500], seed=6).draw(0, 8)
    assert (one.starts != other.starts).any()


GOLDEN_MODELS = [1, 1, 1, 1, 2, 1]
GOLDEN_STARTS = [59, 154, 312, 602, 20, 79]


def test_the_draws_of_a_seed_stay_what_they_are() -> None:
    """A resumed run must not change with a version of numpy."""
    spans = draws([100, 1000, 30], [1.0, 2.0, 1.0]).draw(1_000_000, 6)
    assert spans.models.tolist() == GOLDEN_MODELS
    assert spans.starts.tolist() == GOLDEN_STARTS


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [1.0, 0.0]])
def test_weights_that_leave_nothing_to_draw_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights that are not negative and not all zero"):
        draws([0, 9], weights)
