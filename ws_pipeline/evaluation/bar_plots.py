"""What was left out as bars: plain mappings for plotly.js, no plotly in Python. No I/O."""

import polars as pl

from ws_pipeline.evaluation.dot_plots import PALETTE, Figure, escape_label, legend_key

MAX_BARS = 24
"""Reasons drawn, the most frequent ones; the table has all of them."""

_ROW_PIXELS = 26
_FRAME_PIXELS = 84

# In the order a repo goes through them; a stage keeps its colour whoever else is there.
STAGE_ORDER = ("repos", "headers", "selection", "files", "layers", "shards", "corpus")


def dropped_figure(dropped: pl.DataFrame) -> Figure | None:
    """Return a bar for each stage and reason, most frequent first, coloured by the stage.

    Args:
        dropped: ``stage``, ``reason``, ``num_repos``.
    """
    counts = (
        dropped.group_by("stage", "reason")
        .agg(pl.col("num_repos").sum())
        .sort("num_repos", "stage", "reason", descending=[True, False, False])
        .head(MAX_BARS)
        .with_row_index("place")
    )
    if counts.is_empty():
        return None
    stages = sorted(counts["stage"].unique(), key=_stage_place)
    traces = []
    for stage in stages:
        part = counts.filter(pl.col("stage") == stage)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": escape_label(stage),
                "x": part["num_repos"].to_list(),
                "y": part["place"].to_list(),
                "text": [f"{number:,}" for number in part["num_repos"]],
                "textposition": "auto",
                "marker": {"color": _stage_colour(stage)},
                "hovertemplate": f"{escape_label(stage)}: %{{x}} repos<extra></extra>",
            }
        )
    layout = {
        "height": _FRAME_PIXELS + _ROW_PIXELS * counts.height,
        "xaxis": {"title": {"text": "repos"}, "rangemode": "tozero"},
        "yaxis": {
            "tickvals": counts["place"].to_list(),
            "ticktext": [escape_label(reason) for reason in counts["reason"]],
            "range": [counts.height - 0.5, -0.5],
            "zeroline": False,
        },
        "bargap": 0.3,
    }
    legend = [
        legend_key(stage, _stage_colour(stage), "", [index]) for index, stage in enumerate(stages)
    ]
    return {"data": traces, "layout": layout, "legend": legend}


def _stage_place(stage: str) -> tuple[int, str]:
    known = stage in STAGE_ORDER
    return (STAGE_ORDER.index(stage) if known else len(STAGE_ORDER), stage)


def _stage_colour(stage: str) -> str:
    return PALETTE[_stage_place(stage)[0] % len(PALETTE)]
