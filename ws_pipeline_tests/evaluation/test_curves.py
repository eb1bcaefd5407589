"""Points of curves among the rows of a result table, and the figures and section of them."""

from typing import get_args

import plotly.graph_objects as go
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.evaluation.composition_section import composition_blocks
from ws_pipeline.evaluation.curves import (
    Axis,
    CurvePoint,
    curve_figure,
    curve_rows,
    join_point,
    split_point,
)
from ws_pipeline.evaluation.results import RESULT_SCHEMA, ResultContext, Score, results_frame

CONTEXT = ResultContext(recipe="tiny", evaluation="composition", seed=0)


def row(features: str, metric: str, value: float, slice_name: str = "all") -> dict[str, object]:
    return CONTEXT.row(
        target="weights",
        slice_name=slice_name,
        features=features,
        metric=metric,
        score=Score(value=value, low=value - 0.1, high=value + 0.2),
        num_models=7,
    )


def study_rows() -> pl.DataFrame:
    rows = [
        row("16 models of mlp", "relative_error", 0.3),
        row("kinds, size", "relative_error_gain", 0.1),
        row("kinds, diversity", "relative_error_gain", 0.3),
        row("kinds, diversity|kinds, size", "relative_error_gain_difference", 0.2),
    ]
    for metric in ("relative_error", "accuracy_kept"):
        for axis, places in (("size", (16, 64)), ("diversity", (4, 1))):
            rows += [row(f"{axis}: <b>cnn</b>: {at}", metric, 0.5 + at / 100) for at in places]
    rows.append(row("size: <b>cnn</b>: 256", "relative_error", 0.1, "hub"))
    return results_frame(rows)


@given(axis=st.sampled_from(get_args(Axis)), curve=st.text(min_size=1), place=st.integers(0, 10**9))
def test_a_point_survives_its_name(axis: Axis, curve: str, place: int) -> None:
    point = CurvePoint(axis, curve, place)
    assert split_point(join_point(point)) == point


@given(features=st.text())
def test_other_names_are_no_points(features: str) -> None:
    point = split_point(features)
    assert point is None or join_point(point) == features


def test_a_figure_has_a_line_in_order_with_the_intervals_of_its_rows() -> None:
    points = curve_rows(study_rows()).filter(pl.col("metric") == "accuracy_kept")
    figure = curve_figure(points, axis="diversity", label="accuracy kept")
    assert figure is not None
    go.Figure(data=figure["data"], layout=figure["layout"])  # plotly refuses what it does not know
    (line,) = figure["data"]
    assert line["x"] == [1, 4]
    assert line["y"] == [0.51, 0.54]
    assert line["name"] == "&lt;b&gt;cnn&lt;/b&gt;"
    assert [round(value, 9) for value in line["error_y"]["array"]] == [0.2, 0.2]
    assert [round(value, 9) for value in line["error_y"]["arrayminus"]] == [0.1, 0.1]


def test_the_section_has_both_numbers_against_both_axes_and_the_gains() -> None:
    blocks = list(composition_blocks(study_rows()))
    figures = [block.heading for block in blocks if block.figure is not None]
    assert figures == [
        f"{what}, {where}"
        for what in ("Error on held-out weights", "Weights generated for held-out models")
        for where in ("against size at fixed diversity", "against diversity at fixed size")
    ]
    gains, differences = blocks[-1].tables
    assert [cells[0].text for cells in gains.rows] == ["kinds, size", "kinds, diversity"]
    assert len(differences.rows) == 1
    shown = [trace["x"] for block in blocks if block.figure for trace in block.figure["data"]]
    assert [16, 64] in shown
    assert not any(256 in places for places in shown)  # of another slice


def test_without_a_study_there_is_no_section() -> None:
    assert not list(composition_blocks(pl.DataFrame(schema=RESULT_SCHEMA)))
