"""The bars of what was left out."""

import plotly.graph_objects as go
import polars as pl

from ws_pipeline.evaluation.bar_plots import MAX_BARS, STAGE_ORDER, dropped_figure
from ws_pipeline.hub.ledger import STAGES

DROPPED = pl.DataFrame(
    {
        "stage": ["corpus", "headers", "headers", "headers"],
        "reason": ["near_duplicate", "gated", "pickle_only", "gated"],
        "num_repos": [3, 7, 1, 5],
    }
)


def test_there_is_a_bar_for_each_reason_most_frequent_first_by_stage() -> None:
    figure = dropped_figure(DROPPED)
    assert figure is not None
    assert [(t["name"], t["x"], t["y"]) for t in figure["data"]] == [
        ("headers", [12, 1], [0, 2]),
        ("corpus", [3], [1]),
    ]
    assert figure["layout"]["yaxis"]["ticktext"] == ["gated", "near_duplicate", "pickle_only"]
    assert [key["label"] for key in figure["legend"]] == ["headers", "corpus"]
    go.Figure(data=figure["data"], layout=figure["layout"])  # raises on an unknown property


def test_every_stage_of_the_ledger_has_a_colour_of_its_own() -> None:
    assert ("repos", *STAGES) == STAGE_ORDER
    dropped = pl.DataFrame({"stage": STAGE_ORDER, "reason": "gated", "num_repos": 1})
    figure = dropped_figure(dropped)
    assert figure is not None
    assert len({t["marker"]["color"] for t in figure["data"]}) == len(STAGE_ORDER)


def test_labels_are_escaped_and_the_long_tail_is_left_to_the_table() -> None:
    many = pl.DataFrame(
        {
            "stage": "<b>",
            "reason": [f"<i>{n}" for n in range(MAX_BARS + 5)],
            "num_repos": range(1, MAX_BARS + 6),
        }
    )
    figure = dropped_figure(many)
    assert figure is not None
    assert len(figure["data"][0]["x"]) == MAX_BARS
    assert "<" not in figure["data"][0]["name"] + "".join(figure["layout"]["yaxis"]["ticktext"])


def test_nothing_left_out_is_no_figure() -> None:
    assert dropped_figure(DROPPED.clear()) is None
