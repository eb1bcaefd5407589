"""The figures of what a zoo is good for: parents found, soups, averages of epochs. No I/O.

matplotlib's object interface, imported when a figure is drawn.
"""

from typing import Any

import polars as pl

SIZE_INCHES = (6.4, 3.6)


def _make_axes(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_recalls(table: pl.DataFrame) -> Any:
    """Draw the table of ``parents.compare_searches``: a bar with its interval per search."""
    figure, axes = _make_axes("parents found at first place")
    recalls = table["recall"]
    below, above = (recalls - table["low"]).clip(0), (table["high"] - recalls).clip(0)
    axes.barh(table["search"], recalls, xerr=[below, above], color="#4477aa")
    axes.axvline(float(table["chance"].mean()), color="black", linestyle=":", label="guessing")  # type: ignore[arg-type]
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return figure


def draw_soups(table: pl.DataFrame) -> Any:
    """Draw the table of ``soup_study.compare_soups``: a line per parent and shape."""
    columns = ["mean_member", "uniform", "greedy", "best_member"]
    labels = ["mean member", "uniform soup", "greedy soup", "best member"]
    figure, axes = _make_axes("accuracy on test, a line per parent and shape")
    for row in table.select(columns).iter_rows():
        axes.plot(labels, row, marker=".", color="#4477aa", alpha=0.4)
    axes.plot(labels, table.select(columns).mean().row(0), marker="o", color="black", label="mean")
    axes.legend(frameon=False)
    return figure


def draw_epoch_averages(table: pl.DataFrame) -> Any:
    """Draw the table of ``soup_study.compare_epoch_averages``: a dot per model."""
    figure, axes = _make_axes("accuracy on test: the last epochs' average against the last")
    axes.axline((0.5, 0.5), slope=1, color="black", linestyle=":")
    axes.scatter(table["last"], table["average"], color="#4477aa", s=12)
    axes.set_xlabel("last epoch")
    axes.set_ylabel("average")
    return figure
