"""The results as one table for a terminal. No I/O: the caller prints it."""

import textwrap
from collections.abc import Mapping

import polars as pl
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from ws_pipeline.evaluation.features import (
    HYPER_PARAMETERS,
    MEAN,
    RANDOM,
    STATISTICS,
    UNTRAINED,
    is_control,
    is_plain,
)
from ws_pipeline.evaluation.labels import (
    LOWER_IS_BETTER,
    NOT_MEASURED_TEXT,
    feature_label,
    format_number,
    metric_label,
    target_label,
)
from ws_pipeline.evaluation.results import SLICE_ALL
from ws_pipeline.evaluation.tables import model_range

_METRICS = ("r2", "recall@1", "relative_error")
_SHOWN_CONTROLS = (STATISTICS, HYPER_PARAMETERS, UNTRAINED)
_FLOOR = "floor"
_LABEL_CHARS = 22
_NARROWEST = 0.005  # an interval below the second decimal is not shown
_HEADERS = {HYPER_PARAMETERS: "hyper-par.", UNTRAINED: "untrained"}


def render_results_table(results: pl.DataFrame, *, recipe: str | None = None) -> RichTable:
    """Return the terminal's table: what was asked, down; representations and controls, across.

    Args:
        results: Result table.
        recipe: Which recipe to show; the first where None.
    """
    if recipe is None and len(results):
        recipe = results["recipe"][0]
    rows = results.filter(
        (pl.col("recipe") == recipe)
        & (pl.col("slice") == SLICE_ALL)
        & pl.col("metric").is_in(_METRICS)
    )
    found = rows["features"].unique(maintain_order=True).to_list()
    learned = [name for name in found if not is_control(name) and is_plain(name)]
    columns = (*learned, *_SHOWN_CONTROLS, _FLOOR)
    title = Text(f"Held-out models, recipe {recipe}")
    table = RichTable(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("what", no_wrap=True)
    for name in columns[:-1]:
        table.add_column(Text(_HEADERS.get(name, feature_label(name))), justify="right")
    table.add_column("floor", justify="right")
    table.caption = Text("95 % intervals over lineages; floor: the mean's or chance's score")
    key = ("evaluation", "target", "metric")
    for (_, target, metric), part in rows.group_by(key, maintain_order=True):
        cells: dict[str, Mapping[str, object]] = {
            row["features"]: row for row in part.iter_rows(named=True)
        }
        cells[_FLOOR] = cells.get(MEAN) or cells.get(RANDOM) or {}
        better = " ↓" if metric in LOWER_IS_BETTER else ""
        wrapped = textwrap.fill(target_label(str(target)), _LABEL_CHARS)
        label = Text(f"{wrapped}\n{metric_label(str(metric))}{better}")
        label.append(f"\nn {model_range(part['num_models'])}", style="dim")
        texts = [_cell(cells.get(name)) for name in columns]
        table.add_row(label, *texts)
    return table


def _cell(row: Mapping[str, object] | None) -> Text:
    """Return a number over its interval, two decimals: the table has to fit 80 columns."""
    if not row or not isinstance(row["value"], float):
        return Text(NOT_MEASURED_TEXT, style="dim")
    low, high = row["low"], row["high"]
    text = Text(format_number(row["value"], digits=2))
    if isinstance(low, float) and isinstance(high, float) and high - low >= _NARROWEST:
        bounds = f"{format_number(low, digits=2)}, {format_number(high, digits=2)}"
        text.append(f"\n[{bounds}]", style="dim")
    return text
