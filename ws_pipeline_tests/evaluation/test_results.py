import polars as pl
import pytest

from ws_pipeline.errors import RefusedError
from ws_pipeline.evaluation.leaderboard import build_leaderboard
from ws_pipeline.evaluation.results import (
    RESULT_SCHEMA,
    ResultContext,
    Score,
    concat_results,
    join_pair,
    results_frame,
    split_pair,
    validate_results,
)


def frame(recipe="tiny", seed=0, value=0.5, low=0.4, high=0.6, metric="r2"):
    row = ResultContext(recipe=recipe, evaluation="properties", seed=seed).row(
        target="accuracy",
        slice_name="all",
        features="backbone",
        metric=metric,
        score=Score(value=value, low=low, high=high),
        num_models=9,
    )
    return results_frame([row])


def test_nothing_concatenates_to_an_empty_table_of_the_schema():
    assert concat_results([]).schema == RESULT_SCHEMA


def test_other_columns_are_refused():
    with pytest.raises(RefusedError, match="must have the columns"):
        validate_results(frame().drop("seed"))


def test_a_number_that_stands_twice_is_refused():
    with pytest.raises(RefusedError, match=r"each number once.*'backbone'"):
        concat_results([frame(), frame()])


def test_an_interval_upside_down_is_refused():
    with pytest.raises(RefusedError, match="low <= high"):
        frame(low=0.7)


def test_what_is_not_finite_becomes_null():
    assert frame(value=float("nan"), low=float("-inf"))["value"].to_list() == [None]


def test_pairs_split_as_they_were_joined():
    assert split_pair(join_pair("backbone+statistics", "mean")) == ("backbone+statistics", "mean")


def test_the_leaderboard_sets_recipes_side_by_side():
    board = build_leaderboard(concat_results([frame(), frame("small", value=0.7, high=0.8)]))
    assert board.height == 1
    assert board.columns[-6:] == [
        "small",
        "small:low",
        "small:high",
        "tiny",
        "tiny:low",
        "tiny:high",
    ]
    assert board.row(0)[-6:] == (0.7, 0.4, 0.8, 0.5, 0.4, 0.6)


def test_several_seeds_show_their_mean_and_the_hull_of_their_intervals():
    results = concat_results([frame(seed=1), frame(seed=2, value=0.7, low=0.65, high=0.9)])
    row = build_leaderboard(results).row(0, named=True)
    assert (row["tiny"], row["tiny:low"], row["tiny:high"]) == (pytest.approx(0.6), 0.4, 0.9)


def test_comparisons_and_other_slices_stay_out_of_the_leaderboard():
    results = concat_results([frame(), frame(metric="r2_difference")])
    assert build_leaderboard(results)["metric"].to_list() == ["r2"]
    assert isinstance(build_leaderboard(results.clear()), pl.DataFrame)
