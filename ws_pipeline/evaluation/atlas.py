"""The atlas: every model of the corpus as a dot on one page, relatives joined. Writes that file.

Dots lie where t-SNE puts their embeddings: neighbours are near, distances between clusters mean
nothing. Colours by family, data set or accuracy; lines are edges of the lineage graph. Like the
report the page holds all it needs, fetches nothing, and escapes what strangers wrote.

Source: van der Maaten & Hinton, Visualizing data using t-SNE, JMLR 9 (2008); scikit-learn's.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.dot_plots import PALETTE, SYMBOLS, Figure, escape_label, legend_key
from ws_pipeline.evaluation.features import embedding_features
from ws_pipeline.evaluation.labels import format_number
from ws_pipeline.evaluation.lineage_recovery import true_edges
from ws_pipeline.evaluation.probes import standardize
from ws_pipeline.evaluation.report_input import ReportInput
from ws_pipeline.evaluation.targets import ACCURACY, read_card_truth, read_dataset
from ws_pipeline.evaluation.templating import render_page

ATLAS_NAME = "atlas.html"

MAX_MODELS = 5_000
"""Dots on the map, evenly spaced in the corpus; t-SNE of 5,000 takes a CPU-minute."""

MIN_MODELS = 8
PERPLEXITY = 15.0
"""Of scikit-learn's 5 to 50: lineages have a handful of members, families some dozens."""
MAX_COMPONENTS = 50
"""Principal components that t-SNE sees, as its authors advise."""

_OTHER_COLOUR = "#9aa3ad"
_EDGE_COLOUR = "#7b8791"

FloatArray = NDArray[np.float64]


def write_atlas(path: Path, report: ReportInput, *, seed: int = 0) -> bool:
    """Write the map; False, and no file, where fewer than `MIN_MODELS` have embeddings."""
    page = render_atlas(report, seed=seed)
    if page is None:
        path.unlink(missing_ok=True)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)
    return True


def render_atlas(report: ReportInput, *, seed: int = 0) -> str | None:
    """Return the page, or None without enough embeddings."""
    models = place_models(report.corpus, report.embeddings, seed=seed)
    if models is None:
        return None
    figure = atlas_figure(models, report.edges)
    return render_page(
        "atlas.html.j2",
        title=report.title,
        recipe=report.recipe or "",
        num_models=len(models),
        num_left_out=len(report.corpus) - len(models),
        num_edges=figure["num_edges"],
        figure=figure,
    )


def place_models(
    corpus: pl.DataFrame, embeddings: pl.DataFrame, *, seed: int
) -> pl.DataFrame | None:
    """Return hub_id, repo_id, family, split, dataset, accuracy and the place (x, y) of models."""
    table = embedding_features("atlas", corpus, embeddings)
    rows = np.flatnonzero(table.available)
    rows = rows[:: max(1, -(-len(rows) // MAX_MODELS))]
    if len(rows) < MIN_MODELS:
        return None
    chosen = np.zeros(len(corpus), dtype=bool)
    chosen[rows] = True
    places = lay_out(standardize(table.values, chosen)[rows], seed)
    cards = corpus["card"] if "card" in corpus.columns else pl.Series([None] * len(corpus))
    with_cards = corpus.select("hub_id", card=cards.cast(pl.String))
    accuracy = read_card_truth(with_cards, (ACCURACY,)).targets[ACCURACY]
    return (
        corpus.select("hub_id", "repo_id", "family", "split")
        .with_columns(
            dataset=pl.Series([read_dataset(card) for card in cards], dtype=pl.String),
            accuracy=accuracy,
        )
        .filter(pl.Series(chosen))
        .with_columns(x=pl.Series(places[:, 0]), y=pl.Series(places[:, 1]))
    )


def lay_out(vectors: FloatArray, seed: int) -> FloatArray:
    """Return the t-SNE of standardised vectors, ``(models, 2)``; the same for the same seed."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    num_models, num_features = vectors.shape
    with threadpool_limits(1):  # sums in one order: the same map every time
        size = min(MAX_COMPONENTS, num_models, max(num_features, 1))
        reduced = PCA(n_components=size, random_state=seed).fit_transform(vectors)
        perplexity = min(PERPLEXITY, (num_models - 1) / 3)
        tsne = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=seed, n_jobs=1)
        return np.asarray(tsne.fit_transform(reduced), dtype=np.float64).round(3)


def atlas_figure(models: pl.DataFrame, edges: pl.DataFrame) -> Figure:
    """Return traces and modes: which traces and which legend belong to each colouring."""
    pairs = true_edges(models, edges)
    data: list[Figure] = [_edge_trace(models, pairs)]
    modes = []
    for label, column in (("family", "family"), ("data set", "dataset")):
        traces, legend = _group_traces(models, column, first=len(data))
        modes.append(
            {"label": label, "legend": legend, "traces": [key["traces"] for key in legend]}
        )
        data += traces
    data.append(_accuracy_trace(models))
    modes.append({"label": "accuracy", "legend": [], "traces": [[len(data) - 1]]})
    for index, trace in enumerate(data):
        trace["visible"] = index == 0 or [index] in modes[0]["traces"]
    axis = {"visible": False, "zeroline": False}
    layout = {"xaxis": axis, "yaxis": axis, "hovermode": "closest"}
    return {"data": data, "layout": layout, "modes": modes, "num_edges": len(pairs)}


def _edge_trace(models: pl.DataFrame, pairs: NDArray[np.int64]) -> Figure:
    """Return all edges as one broken line."""
    x, y = models["x"].to_list(), models["y"].to_list()
    path = [(row, at) for child, parent in pairs.tolist() for row, at in ((child, 0), (parent, 1))]
    across: list[float | None] = []
    down: list[float | None] = []
    for row, end in path:
        across += [x[row], None][: 1 + end]
        down += [y[row], None][: 1 + end]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": across,
        "y": down,
        "hoverinfo": "skip",
        "line": {"color": _EDGE_COLOUR, "width": 1},
        "opacity": 0.55,
    }


def _group_traces(
    models: pl.DataFrame, column: str, *, first: int
) -> tuple[list[Figure], list[Figure]]:
    """Return a trace and a key per value, the most frequent first; the rest share one."""
    counts = models.filter(pl.col(column) != "")[column].value_counts()
    ranked = counts.sort(["count", column], descending=[True, False])[column].to_list()
    named = ranked[: len(PALETTE) * 2]
    traces: list[Figure] = []
    legend: list[Figure] = []
    for index, value in enumerate(named):
        colour = PALETTE[index % len(PALETTE)]
        symbol = SYMBOLS[index // len(PALETTE) % len(SYMBOLS)]
        part = models.filter(pl.col(column) == value)
        legend.append(legend_key(value, colour, symbol, [first + len(traces)]))
        traces.append(_dots(part, {"color": colour, "symbol": symbol}))
    rest = models.filter(~pl.col(column).is_in(named))
    if len(rest):
        label = "not stated" if len(ranked) == len(named) else "all others"
        legend.append(legend_key(label, _OTHER_COLOUR, "circle", [first + len(traces)]))
        traces.append(_dots(rest, {"color": _OTHER_COLOUR, "symbol": "circle"}))
    return traces, legend


def _accuracy_trace(models: pl.DataFrame) -> Figure:
    """Return all models coloured by accuracy; those without one are not drawn."""
    known = models.filter(pl.col("accuracy").is_not_null())
    scale: dict[str, Any] = {
        "color": known["accuracy"].to_list(),
        "colorscale": "Viridis",
        "cmin": 0.0,
        "cmax": 1.0,
        "showscale": True,
        "colorbar": {"thickness": 10, "len": 0.6, "outlinewidth": 0, "title": {"text": "accuracy"}},
    }
    return _dots(known, scale)


def _dots(models: pl.DataFrame, marker: dict[str, Any]) -> Figure:
    """Return models as dots with what is known of them at hand."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": models["x"].to_list(),
        "y": models["y"].to_list(),
        "text": [_hover(row) for row in models.iter_rows(named=True)],
        "customdata": models["repo_id"].to_list(),
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": 7, "opacity": 0.85, "line": {"width": 0.5, "color": "#ffffff"}} | marker,
    }


def _hover(row: dict[str, Any]) -> str:
    """Return what a dot says."""
    parts: Sequence[str] = (
        f"<b>{escape_label(row['repo_id'])}</b>",
        f"{escape_label(row['family'])}, {row['split']}",
        escape_label(row["dataset"]),
        f"accuracy {format_number(row['accuracy'])}" if row["accuracy"] is not None else "",
    )
    return "<br>".join(part for part in parts if part)
