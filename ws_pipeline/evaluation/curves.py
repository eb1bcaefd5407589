"""Curves of a study in the result table: numbers against size or diversity. No I/O.

A point is a row like any other, whose ``features`` say which curve it is of and where it stands:
``size: all zoos: 64``. A figure is made of rows alone, so that a report needs no study.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
import polars as pl

from ws_pipeline.evaluation.dot_plots import PALETTE, SYMBOLS, Figure, escape_label, legend_key

Axis = Literal["size", "diversity"]

AXIS_LABELS = {
    "size": "models trained on",
    "diversity": "data sets or architectures among as many models",
}
_SEPARATOR = ": "


class CurvePoint(NamedTuple):
    """Where a number stands."""

    axis: Axis
    curve: str
    place: int


def join_point(point: CurvePoint) -> str:
    """Return the ``features`` entry of a point."""
    return _SEPARATOR.join((point.axis, point.curve, str(point.place)))


def split_point(features: str) -> CurvePoint | None:
    """Return the point of a ``features`` entry, None for any other; inverse of `join_point`."""
    axis, _, rest = features.partition(_SEPARATOR)
    curve, _, place = rest.rpartition(_SEPARATOR)
    for known in get_args(Axis):
        if known == axis and curve and place.isdecimal():
            point = CurvePoint(known, curve, int(place))
            return point if join_point(point) == features else None
    return None


def curve_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that are points, with columns axis, curve and place, in order."""
    points = [split_point(name) for name in rows["features"]]
    named = rows.with_columns(
        axis=pl.Series([p.axis if p else None for p in points], dtype=pl.String),
        curve=pl.Series([p.curve if p else None for p in points], dtype=pl.String),
        place=pl.Series([p.place if p else None for p in points], dtype=pl.Int64),
    )
    return named.filter(pl.col("axis").is_not_null() & pl.col("value").is_not_null())


def curve_figure(points: pl.DataFrame, *, axis: Axis, label: str) -> Figure | None:
    """Return lines with intervals against size or diversity, one per curve.

    Args:
        points: Of :func:`curve_rows`, of one slice and metric.
        axis: Which of the two.
        label: Of the numbers.
    """
    points = points.filter(pl.col("axis") == axis)
    if points.is_empty():
        return None
    traces, legend = [], []
    curves = points.group_by("curve", maintain_order=True)
    for index, ((name,), part) in enumerate(curves):
        colour, symbol = PALETTE[index % len(PALETTE)], SYMBOLS[index % len(SYMBOLS)]
        traces.append(_trace(part.sort("place"), escape_label(str(name)), colour, symbol))
        legend.append(legend_key(str(name), colour, symbol, [index]))
    places = points["place"].unique().sort().to_list()
    layout = {
        "height": 360,
        "xaxis": {
            "title": {"text": AXIS_LABELS[axis]},
            "type": "log",
            "tickvals": places,
            "ticktext": [str(place) for place in places],
        },
        "yaxis": {"title": {"text": label}},
    }
    return {"data": traces, "layout": layout, "legend": legend}


def _trace(part: pl.DataFrame, name: str, colour: str, symbol: str) -> Figure:
    values = part["value"].to_numpy()
    low, high = (part[end].fill_null(part["value"]).to_numpy() for end in ("low", "high"))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": part["place"].to_list(),
        "y": values.tolist(),
        "customdata": np.stack([low, high], axis=1).tolist(),
        "hovertemplate": (
            f"{name}, %{{x}}: %{{y:.3f}} [%{{customdata[0]:.3f}}, %{{customdata[1]:.3f}}]"
            "<extra></extra>"
        ),
        "line": {"color": colour, "width": 1.6},
        "marker": {"color": colour, "symbol": symbol, "size": 9},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": (high - values).clip(0).tolist(),
            "arrayminus": (values - low).clip(0).tolist(),
            "color": colour,
            "thickness": 1.4,
            "width": 0,
        },
    }
