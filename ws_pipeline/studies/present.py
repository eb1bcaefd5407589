"""A study's table and figure: Markdown, Parquet and SVG in one folder. Does I/O in `write_study`.

What it is: one row per variant with its factors, cost and numbers; a dot with its interval for
each. What it is not: the numbers (``summary``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ws_pipeline.evaluation.curves import AXIS_LABELS, curve_rows
from ws_pipeline.evaluation.results import SLICE_ALL
from ws_pipeline.studies.bench import TARGET, CellTables
from ws_pipeline.studies.contrasts import GAIN_SUFFIX
from ws_pipeline.studies.study import Study
from ws_pipeline.studies.summary import ACCURACY_KEPT, R2, RELATIVE_ERROR

COLUMNS = {RELATIVE_ERROR: "error", ACCURACY_KEPT: "generated, accuracy kept"}

PANELS = {
    RELATIVE_ERROR: "relative error of a layer (median)",
    ACCURACY_KEPT: "accuracy that generated weights keep",
    R2: f"R² of {TARGET} from the embedding",
}

ROW_INCHES = 0.22
"""Height of a variant in the figure."""

COSTS = ("num_params", "num_train_models", "num_train_weights", "latents_per_weight", "cpu_seconds")
"""Of a cell's record; the table shows the mean over seeds."""


def study_table(
    study: Study, results: pl.DataFrame, cells: Mapping[str, Sequence[CellTables]]
) -> pl.DataFrame:
    """Return one row per variant that has a cell: factors, costs, numbers with intervals."""
    factors = sorted({name for variant in study.variants for name in variant.factors})
    rows: list[dict[str, Any]] = []
    for variant in study.variants:
        done = cells.get(variant.name, ())
        if not done:
            continue
        row: dict[str, Any] = {"variant": variant.name, "seeds": len(done)}
        row |= {name: variant.factors.get(name, "") for name in factors}
        records = pl.concat([cell.record for cell in done])
        row |= {name: float(np.mean(records[name].to_numpy())) for name in COSTS}
        rows.append(row | _numbers(results.filter(pl.col("features") == variant.name)))
    return pl.DataFrame(rows, infer_schema_length=None)


def _numbers(results: pl.DataFrame) -> dict[str, float | None]:
    """Return value, low and high of each slice and metric, by column name."""
    columns: dict[str, float | None] = {}
    for row in results.iter_rows(named=True):
        what = COLUMNS.get(row["metric"], f"{row['target']} R2")
        name = what if row["slice"] == SLICE_ALL else f"{what} {row['slice']}"
        columns |= {name: row["value"], f"{name} low": row["low"], f"{name} high": row["high"]}
    return columns


def write_study(folder: Path, study: Study, results: pl.DataFrame, table: pl.DataFrame) -> None:
    """Write ``results.parquet``, ``table.parquet``, ``table.md``, ``figure.svg``, ``curves.svg``.

    The last one where the study has curves.
    """
    results.write_parquet(folder / "results.parquet")
    table.write_parquet(folder / "table.parquet")
    parts = [f"# {study.question}", markdown(table)]
    if study.contrasts:
        parts.append(markdown(contrast_table(results)))
    (folder / "table.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    draw_study(study, results).savefig(folder / "figure.svg", metadata={"Date": None})
    if study.curves:
        draw_curves(results).savefig(folder / "curves.svg", metadata={"Date": None})


def contrast_table(results: pl.DataFrame) -> pl.DataFrame:
    """Return the gains of diversity and of size, and their differences, as a table for people."""
    rows = results.filter(pl.col("metric").str.contains(GAIN_SUFFIX, literal=True))
    shown = rows.select("features", "slice", "metric", gain="value", low="low", high="high")
    return shown.rename({"low": "gain low", "high": "gain high"})


def markdown(table: pl.DataFrame) -> str:
    """Return the table with each interval behind its number; a column of blanks is left out."""
    if table.is_empty():
        return "No cell was made yet."
    ends = {f"{name} {end}" for name in table.columns for end in ("low", "high")}
    names = [name for name in table.columns if name not in ends and not _is_blank(table[name])]
    lines = [names, ["---"] * len(names)]
    lines += [[_cell(row, name) for name in names] for row in table.iter_rows(named=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_blank(column: pl.Series) -> bool:
    return column.null_count() == len(column) or set(column.to_list()) == {""}


def _cell(row: Mapping[str, Any], name: str) -> str:
    value, low, high = row[name], row.get(f"{name} low"), row.get(f"{name} high")
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def draw_study(study: Study, results: pl.DataFrame) -> Any:
    """Draw the numbers of every variant, a dot with its interval, in the study's order."""
    from matplotlib.figure import Figure

    rows = results.filter(pl.col("slice") == SLICE_ALL)
    panels = [(metric, label) for metric, label in PANELS.items() if metric in rows["metric"]]
    panels = panels or list(PANELS.items())[:1]
    shown = set(rows["features"])
    names = [variant.name for variant in study.variants if variant.name in shown]
    height = 1.2 + ROW_INCHES * max(len(names), 1)
    figure = Figure(figsize=(3.0 + 3.0 * len(panels), height), layout="constrained")
    figure.suptitle(study.question, fontsize="medium")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    for axes, (metric, label) in zip(grid[0], panels, strict=True):
        part = {
            row["features"]: row for row in rows.iter_rows(named=True) if row["metric"] == metric
        }
        for place, name in enumerate(names):
            row = part.get(name)
            if row is None or row["value"] is None:
                continue
            colour = "tab:orange" if name == study.baseline else "tab:blue"
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.0)
            axes.plot(row["value"], place, "o", color=colour, markersize=4)
        axes.set_xlabel(label)
        axes.set_yticks(range(len(names)), names, fontsize="x-small")
        axes.grid(axis="x", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    return figure


def draw_curves(results: pl.DataFrame) -> Any:
    """Draw error and generated accuracy against size and against diversity, with intervals."""
    from matplotlib.figure import Figure

    points = curve_rows(results.filter(pl.col("slice") == SLICE_ALL))
    figure = Figure(figsize=(11.0, 8.0), layout="constrained")
    grid = figure.subplots(2, 2, squeeze=False)
    for row, metric in zip(grid, (RELATIVE_ERROR, ACCURACY_KEPT), strict=True):
        for axes, (axis, label) in zip(row, AXIS_LABELS.items(), strict=True):
            part = points.filter((pl.col("metric") == metric) & (pl.col("axis") == axis))
            for (name,), curve in part.group_by("curve", maintain_order=True):
                own = curve.sort("place")
                bounds = [own[end].fill_null(own["value"]) for end in ("low", "high")]
                reach = np.abs(np.stack([own["value"] - bounds[0], bounds[1] - own["value"]]))
                axes.errorbar(
                    own["place"], own["value"], yerr=reach, marker="o", markersize=4, label=name
                )
            axes.set_xscale("log", base=2)
            axes.set_xlabel(label)
            axes.set_ylabel(PANELS[metric])
            axes.spines[["top", "right"]].set_visible(False)
            if not part.is_empty():
                axes.legend(fontsize="x-small", frameon=False)
    return figure
