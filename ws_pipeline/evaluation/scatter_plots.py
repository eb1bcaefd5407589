"""Maps, predictions and training curves as plotly.js objects: plain mappings. No I/O."""

import numpy as np
import polars as pl

from ws_pipeline.evaluation.dot_plots import PALETTE, SYMBOLS, Figure, escape_label, legend_key
from ws_pipeline.evaluation.features import embedding_features
from ws_pipeline.evaluation.labels import target_label
from ws_pipeline.evaluation.probes import standardize

_OTHER_COLOUR = "#9aa3ad"

MAX_POINTS = 5_000
"""Dots in one scatter: beyond, the file grows and the eye sees no more."""


def map_figure(corpus: pl.DataFrame, embeddings: pl.DataFrame) -> Figure | None:
    """Return the models on the first two principal components of their embeddings, by family."""
    table = embedding_features("map", corpus, embeddings)
    models = corpus.filter(pl.Series(table.available))
    if len(models) < 3:
        return None
    vectors = standardize(table.values, table.available)[table.available]
    left, singular, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    if len(singular) < 2:
        return None
    share = singular**2 / max(float((singular**2).sum()), 1e-300)
    points = models.select("family", "repo_id", "split").with_columns(
        x=pl.Series(left[:, 0] * singular[0]), y=pl.Series(left[:, 1] * singular[1])
    )
    layout = {
        "height": 520,
        "xaxis": {"title": {"text": f"first component, {share[0]:.0%} of variance"}},
        "yaxis": {"title": {"text": f"second, {share[1]:.0%}"}},
        "hovermode": "closest",
    }
    return _family_figure(points, "%{text}<extra></extra>", layout)


def prediction_figure(predictions: pl.DataFrame) -> Figure | None:
    """Return predicted against true values of held-out models, by family, with the diagonal."""
    if predictions.is_empty():
        return None
    points = predictions.select("family", "repo_id", x="truth", y="prediction").with_columns(
        split=pl.lit("test")
    )
    values = np.concatenate([points["x"].to_numpy(), points["y"].to_numpy()])
    low, high = float(values.min()), float(values.max())
    label = target_label(predictions["target"][0])
    hover = "%{text}<br>true %{x:.3f}, predicted %{y:.3f}<extra></extra>"
    layout = {
        "height": 460,
        "xaxis": {"title": {"text": f"true {label}"}},
        "yaxis": {"title": {"text": f"predicted {label}"}},
        "hovermode": "closest",
        "shapes": [
            {
                "type": "line",
                "x0": low,
                "y0": low,
                "x1": high,
                "y1": high,
                "line": {"color": "#b8c0c8", "width": 1, "dash": "dot"},
                "layer": "below",
            }
        ],
    }
    return _family_figure(points, hover, layout)


def loss_figure(losses: pl.DataFrame) -> Figure | None:
    """Return training curves: columns step, name, value."""
    finite = losses.filter(pl.col("value").is_finite())
    if finite.is_empty():
        return None
    traces, legend = [], []
    for index, ((name,), part) in enumerate(finite.group_by("name", maintain_order=True)):
        curve = _thin(part.sort("step"))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": curve["step"].to_list(),
                "y": curve["value"].to_list(),
                "line": {"color": PALETTE[index % len(PALETTE)], "width": 1.6},
            }
        )
        legend.append(legend_key(str(name), PALETTE[index % len(PALETTE)], "line", [index]))
    layout = {
        "height": 340,
        "xaxis": {"title": {"text": "step"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "loss"}},
    }
    return {"data": traces, "layout": layout, "legend": legend}


def _family_figure(points: pl.DataFrame, hover: str, layout: Figure) -> Figure:
    """Return one trace per family, the largest first; those beyond the palette share one."""
    points = _thin(points)
    counts = points["family"].value_counts(sort=True)
    families = counts.sort(["count", "family"], descending=[True, False])["family"]
    named = families.head(len(PALETTE)).to_list()
    groups = [(name, points.filter(pl.col("family") == name)) for name in named]
    others = points.filter(~pl.col("family").is_in(named))
    if len(others):
        groups.append((f"{len(families) - len(named)} other families", others))
    traces, legend = [], []
    for index, (name, part) in enumerate(groups):
        colour = PALETTE[index] if index < len(named) else _OTHER_COLOUR
        symbol = SYMBOLS[index % len(SYMBOLS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": part["x"].to_list(),
                "y": part["y"].to_list(),
                "text": [
                    f"{escape_label(repo)} ({split})"
                    for repo, split in part["repo_id", "split"].rows()
                ],
                "hovertemplate": hover,
                "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
            }
        )
        legend.append(legend_key(name, colour, symbol, [index]))
    return {"data": traces, "layout": layout, "legend": legend}


def _thin(rows: pl.DataFrame) -> pl.DataFrame:
    """Return every n-th row, MAX_POINTS at most."""
    return rows.gather_every(max(1, -(-len(rows) // MAX_POINTS)))
