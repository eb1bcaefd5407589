"""Scores with their intervals as plotly.js objects: plain mappings, no plotly in Python. No I/O.

Colours and marks are fixed per representation, so that the same thing looks the same everywhere.
All text that came from a hub is escaped: plotly.js reads a subset of HTML in its labels.
"""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.features import (
    HYPER_PARAMETERS,
    LATENTS_ALONE,
    STATISTICS,
    UNTRAINED,
)
from ws_pipeline.evaluation.labels import (
    feature_label,
    format_number,
    metric_label,
    slice_label,
    target_label,
)

Figure = dict[str, Any]
"""``data`` and ``layout`` of plotly.js, and ``legend``: label, color, mark, traces of each key."""

# Okabe & Ito's palette, safe for colour-blind readers; https://jfly.uni-koeln.de/color/
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7a6a00",
    "#5b3fa8",
    "#a3224e",
)
_JOINED_COLOUR = "#5b3fa8"
_CONTROL_COLOUR = "#6b7682"
_COLOURS = {
    "backbone": "#0072b2",
    "backbone" + LATENTS_ALONE: "#cc79a7",
    STATISTICS: "#d55e00",
    HYPER_PARAMETERS: "#009e73",
    UNTRAINED: "#9aa3ad",
}
MARKS = {
    "circle": "●",
    "diamond": "◆",
    "square": "■",
    "cross": "✚",
    "triangle-up": "▲",
    "x": "✖",
}
SYMBOLS = tuple(MARKS)
"""plotly.js' symbols, and the characters that stand for them in the legend."""

MAX_LABEL_CHARS = 80
MAX_TICK_CHARS = 24

_ROW_PIXELS = 34
_FRAME_PIXELS = 96

# R^2 falls without bound; an axis that follows it hides everything between 0 and 1.
_LOWEST_R2_SHOWN = -0.5

_GROUP_SPREAD = 0.66  # share of a group's line that its dots take
_EDGE_SHARE = 0.015  # how far from the edge an arrow stands


def score_figure(rows: pl.DataFrame) -> Figure | None:
    """Return a dot with its interval per representation, of one target, slice and metric."""
    rows = rows.filter(pl.col("value").is_not_null())
    if rows.is_empty():
        return None
    axis = _axis_range(rows)
    names = rows["features"].to_list()
    traces = [
        trace
        for place, name in enumerate(names)
        for trace in _traces(rows[place], [float(place)], name, "circle", axis)
    ]
    layout = _layout(rows, axis, [feature_label(name) for name in names])
    layout["height"] = _FRAME_PIXELS + _ROW_PIXELS * len(names)
    return {"data": traces, "layout": layout, "legend": []}


def grouped_figure(
    rows: pl.DataFrame, *, by: str, features: Sequence[str], reference: float | None = None
) -> Figure | None:
    """Return dots with intervals of several representations for each value of ``by``.

    Args:
        rows: Result rows of one metric.
        by: Column that makes the groups: ``target`` or ``slice``.
        features: Representations to show, in order.
        reference: Where to draw a line, such as the error of predicting the mean.
    """
    rows = rows.filter(pl.col("value").is_not_null() & pl.col("features").is_in(features))
    if rows.is_empty():
        return None
    groups = rows[by].unique(maintain_order=True).to_list()
    shown = [name for name in features if name in rows["features"]]
    axis = _axis_range(rows, reference)
    traces: list[Figure] = []
    legend = []
    for index, name in enumerate(shown):
        part = rows.filter(pl.col("features") == name)
        shift = (index - (len(shown) - 1) / 2) * _GROUP_SPREAD / len(shown)
        places = [groups.index(value) + shift for value in part[by]]
        symbol = SYMBOLS[index % len(SYMBOLS)]
        own = _traces(part, places, name, symbol, axis)
        numbers = list(range(len(traces), len(traces) + len(own)))
        legend.append(legend_key(feature_label(name), _colour(name), symbol, numbers))
        traces.extend(own)
    layout = _layout(rows, axis, [_group_label(group, by) for group in groups])
    layout["height"] = _FRAME_PIXELS + (14 + 13 * len(shown)) * len(groups)
    if reference is not None:
        layout["shapes"] = [_vertical_line(reference)]
    return {"data": traces, "layout": layout, "legend": legend}


def legend_key(label: str, colour: str, symbol: str, traces: Sequence[int]) -> Figure:
    """Return a key of the page's legend; the page escapes the label."""
    mark = MARKS.get(symbol, "▬")
    return {"label": label[:MAX_LABEL_CHARS], "color": colour, "mark": mark, "traces": list(traces)}


def _colour(name: str) -> str:
    """Return the colour of a representation or control."""
    return _COLOURS.get(name, _JOINED_COLOUR if "+" in name else _CONTROL_COLOUR)


def escape_label(text: str, max_chars: int = MAX_LABEL_CHARS) -> str:
    """Return text that plotly.js shows as it is, cut to a length."""
    cut = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return html.escape(cut, quote=False)


def _group_label(group: str, by: str) -> str:
    """Return a group's label on the axis: a target's, or what a slice is of."""
    if by == "target":
        return target_label(group)
    return escape_label(slice_label(group), MAX_TICK_CHARS)


def _axis_range(rows: pl.DataFrame, reference: float | None = None) -> list[float]:
    """Return the axis that holds all intervals; that of R^2 ends below at _LOWEST_R2_SHOWN."""
    low, high = float(_bound(rows, "low").min()), float(_bound(rows, "high").max())
    if rows["metric"][0] == "r2":
        low = max(low, _LOWEST_R2_SHOWN)
    low, high = min(low, 0.0), max(high, reference or 0.0, 0.1)
    margin = 0.05 * (high - low)
    return [low - margin, high + margin]


def _layout(rows: pl.DataFrame, axis: list[float], labels: Sequence[str]) -> Figure:
    """Return the axes of a dot plot: the metric across, one label per line down."""
    return {
        "xaxis": {"title": {"text": metric_label(rows["metric"][0])}, "range": axis},
        "yaxis": {
            "tickvals": list(range(len(labels))),
            "ticktext": list(labels),
            "range": [len(labels) - 0.5, -0.5],
            "zeroline": False,
        },
    }


def _traces(
    rows: pl.DataFrame, places: Sequence[float], name: str, symbol: str, axis: list[float]
) -> list[Figure]:
    """Return dots at places with asymmetric intervals.

    A value below the axis becomes an arrow at its edge with the number beside it.
    """
    colour = _colour(name)
    values, low, high = _bound(rows, "value"), _bound(rows, "low"), _bound(rows, "high")
    label = feature_label(name)
    shared = {
        "type": "scatter",
        "hovertemplate": (
            f"{label} %{{customdata[0]:.3f}} [%{{customdata[1]:.3f}}, %{{customdata[2]:.3f}}],"
            " %{customdata[3]} models<extra></extra>"
        ),
    }
    numbers = np.stack([values, low, high, rows["num_models"].to_numpy()], axis=1)
    hidden = values < axis[0]
    dots = {
        **shared,
        "mode": "markers",
        "name": label,
        "x": [None if h else v for v, h in zip(values.tolist(), hidden, strict=True)],
        "y": list(places),
        "customdata": numbers.tolist(),
        "marker": {"color": colour, "size": 9, "symbol": symbol},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": (high - values).clip(0).tolist(),
            "arrayminus": (values - low).clip(0).tolist(),
            "color": colour,
            "thickness": 1.6,
            "width": 0,
        },
    }
    arrows = {
        **shared,
        "mode": "markers+text",
        "x": [axis[0] + _EDGE_SHARE * (axis[1] - axis[0])] * int(hidden.sum()),
        "y": np.asarray(places)[hidden].tolist(),
        "customdata": numbers[hidden].tolist(),
        "marker": {"color": colour, "size": 9, "symbol": "triangle-left"},
        "text": [format_number(value) for value in values[hidden]],
        "textposition": "middle right",
        "textfont": {"size": 10, "color": colour},
    }
    return [dots, arrows] if hidden.any() else [dots]


def _bound(rows: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a bound of the interval, the value itself where there is none."""
    return rows[column].fill_null(rows["value"]).to_numpy().astype(np.float64)


def _vertical_line(x: float) -> Figure:
    """Return a dotted line over the full height."""
    line = {"color": "#6b7682", "width": 1, "dash": "dot"}
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "line": line,
    }
