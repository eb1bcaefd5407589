"""Result tables set for reading: rows of text for the report. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from ws_pipeline.evaluation.labels import (
    NOT_MEASURED_TEXT,
    feature_label,
    format_bytes,
    format_count,
    format_interval,
    format_number,
    metric_label,
    slice_label,
    target_label,
)
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX, SLICE_ALL


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A number and, smaller beside it, its interval; or just text. ``share`` draws a bar."""

    text: str
    note: str = ""
    share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table for the report. The first ``num_labels`` columns are text, the others numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_labels: int = 1


def score_table(results: pl.DataFrame, *, caption: str, slice_name: str = SLICE_ALL) -> Table:
    """Return features down and metrics across, of one target's rows."""
    rows = results.filter(
        (pl.col("slice") == slice_name) & ~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX)
    )
    return cross_table(rows, down="features", across="metric", caption=caption)


def cross_table(results: pl.DataFrame, *, down: str, across: str, caption: str) -> Table:
    """Return one column of the result table against another, with intervals and model counts."""
    columns = results[across].unique(maintain_order=True).to_list()
    body = []
    for (key,), part in results.group_by(down, maintain_order=True):
        cells = {row[across]: score_cell(row) for row in part.iter_rows(named=True)}
        blank = Cell(text=NOT_MEASURED_TEXT)
        values = [cells.get(name, blank) for name in columns]
        models = Cell(text=model_range(part["num_models"]))
        body.append((Cell(text=_label(down, str(key))), *values, models))
    header = (_HEADERS.get(down, down), *(_label(across, name) for name in columns), "models")
    return Table(caption=caption, columns=header, rows=tuple(body))


def corpus_table(corpus: pl.DataFrame) -> Table:
    """Return families with their models, splits, lineages, parameters and bytes."""
    splits = [
        (pl.col("split") == name).sum().cast(pl.Int64).alias(name)
        for name in ("train", "val", "test")
    ]
    sums = [pl.col(c).sum() for c in ("num_params", "num_bytes") if c in corpus.columns]
    counts = (pl.len().cast(pl.Int64).alias("models"), *splits, pl.col("lineage_root").n_unique())
    by_family = corpus.group_by("family").agg(*counts, *sums).sort("family")
    total = corpus.select(pl.lit("all").alias("family"), *counts, *sums).unique()
    rows = []
    for row in [*by_family.iter_rows(named=True), *total.iter_rows(named=True)]:
        cells = [Cell(text=str(row["family"]))]
        counted = ("models", "train", "val", "test", "lineage_root", "num_params")
        cells.extend(Cell(text=format_count(row[name])) for name in counted if name in row)
        if "num_bytes" in row:
            cells.append(Cell(text=format_bytes(row["num_bytes"])))
        rows.append(tuple(cells))
    header = ["family", "models", "train", "val", "test", "lineages"]
    header += [name for c, name in _SIZES.items() if c in corpus.columns]
    return Table(caption="Models by family and split", columns=tuple(header), rows=tuple(rows))


def count_table(frame: pl.DataFrame, *, caption: str, by: tuple[str, ...], count: str) -> Table:
    """Return counts, largest first, each with a bar."""
    rows = (
        frame.group_by(by)
        .agg(pl.col(count).sum())
        .sort([count, *by], descending=[True, *[False] * len(by)])
    )
    largest = max(rows[count].to_list(), default=0) or 1
    body = tuple(
        (
            *(Cell(text=_label(name, str(row[name]))) for name in by),
            Cell(text=format_count(row[count]), share=row[count] / largest),
        )
        for row in rows.iter_rows(named=True)
    )
    header = (*(name.replace("_", " ") for name in by), count.removeprefix("num_"))
    return Table(caption=caption, columns=header, rows=body, num_labels=len(by))


def provenance_table(provenance: Mapping[str, object]) -> Table:
    """Return nested mappings as dotted names and values."""
    rows = tuple((Cell(text=name), Cell(text=value)) for name, value in _flatten(provenance))
    return Table(caption="Provenance", columns=("what", "value"), rows=rows, num_labels=2)


def leaderboard_table(board: pl.DataFrame, recipes: Iterable[str]) -> Table:
    """Return the leaderboard's lines with one column per recipe."""
    recipes = tuple(recipes)
    body = []
    for row in board.iter_rows(named=True):
        labels = (row["evaluation"], target_label(row["target"]), metric_label(row["metric"]))
        scores = (
            Cell(
                text=format_number(row[name]),
                note=format_interval(row[f"{name}:low"], row[f"{name}:high"]),
            )
            for name in recipes
        )
        texts = (*labels, feature_label(row["features"]))
        body.append((*(Cell(text=text) for text in texts), *scores))
    header = ("evaluation", "target", "metric", "features", *recipes)
    return Table(caption="All recipes", columns=header, rows=tuple(body), num_labels=4)


_SIZES = {"num_params": "parameters", "num_bytes": "size"}
_HEADERS = {"features": "from", "target": "to find", "slice": "models of"}


def score_cell(row: Mapping[str, object]) -> Cell:
    """Return a result row as a number with its interval."""
    value, low, high = (row[name] for name in ("value", "low", "high"))
    numbers = [float(v) if isinstance(v, int | float) else None for v in (value, low, high)]
    return Cell(text=format_number(numbers[0]), note=format_interval(numbers[1], numbers[2]))


def _label(column: str, name: str) -> str:
    """Return the label of a name in a column of the result table."""
    labels = {"features": feature_label, "target": target_label, "metric": metric_label}
    if column == "slice":
        return slice_label(name)
    return labels[column](name) if column in labels else name


def model_range(counts: pl.Series) -> str:
    """Return the number of models, or the range of numbers."""
    values = sorted(set(counts.to_list()))
    return str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield dotted names and texts of a nested mapping."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{name}", str(value)
