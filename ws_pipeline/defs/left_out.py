"""What did not go in: counted from the ledger, and shown in Dagster. Reads the ledger's tables.

Belongs here: counts by stage and reason, their table with bars and their picture as Markdown. Does
not: the HTML report's figure (:mod:`ws_pipeline.evaluation.bar_plots`).
"""

import base64
import io

import polars as pl

from ws_pipeline.defs.step import markdown_table
from ws_pipeline.hub.ledger import REFUSAL_SCHEMA, Ledger

BAR_CHARACTERS = 24
MAX_BARS = 20
"""Reasons drawn, the most frequent ones; the table has all of them."""

NOTHING = "nothing was left out"

DROPPED_COLUMNS = {"stage": pl.String, "reason": pl.String, "num_repos": pl.Int64}


def count_dropped(ledger: Ledger) -> pl.DataFrame:
    """Repos that did not go through, by the stage that refused them and the reason."""
    return _count(refused_repos(ledger))


def count_reasons(verdicts: pl.DataFrame, stage: str) -> pl.DataFrame:
    """The same of one stage's verdicts.

    Args:
        verdicts: ``accepted`` and ``reason``.
        stage: What to call it.
    """
    return _count(verdicts.filter(~pl.col("accepted")).with_columns(stage=pl.lit(stage)))


def refused_repos(ledger: Ledger) -> pl.DataFrame:
    """One row per repo that did not go through: family, repo_id, stage, status, reason, detail."""
    empty = pl.DataFrame(schema=REFUSAL_SCHEMA)
    frames = [ledger.read_refusals(family) for family in ledger.families()]
    return pl.concat([empty, *frames]).sort("family", "repo_id")


def _count(refused: pl.DataFrame) -> pl.DataFrame:
    return (
        refused.group_by("stage", "reason")
        .agg(num_repos=pl.len())
        .sort("stage", "reason")
        .select(pl.col(name).cast(dtype) for name, dtype in DROPPED_COLUMNS.items())
    )


def left_out_table(dropped: pl.DataFrame) -> str:
    """Stage, reason, count and a bar, most first, as Markdown.

    Args:
        dropped: ``stage``, ``reason``, ``num_repos``.
    """
    if dropped.is_empty():
        return NOTHING
    ordered = dropped.sort("num_repos", "stage", "reason", descending=[True, False, False])
    most = int(ordered["num_repos"][0])
    bars = ["█" * max(1, round(BAR_CHARACTERS * n / most)) for n in ordered["num_repos"]]
    total = int(ordered["num_repos"].sum())
    share = [f"{n / total:.0%}" for n in ordered["num_repos"]]
    shown = ordered.select("stage", "reason", repos="num_repos", share=pl.Series(share))
    return markdown_table(shown.with_columns(pl.Series("", bars)))


def left_out_figure(dropped: pl.DataFrame) -> str:
    """The same as a bar chart: a PNG inside a Markdown image, about 20 kB."""
    if dropped.is_empty():
        return NOTHING
    from matplotlib.figure import Figure

    ordered = dropped.sort("num_repos", "stage", "reason", descending=[True, False, False])
    shown = ordered.head(MAX_BARS)
    figure = Figure(figsize=(7.0, 1.0 + 0.3 * shown.height), layout="constrained")
    axes = figure.subplots()
    labels = [f"{stage}: {reason}" for stage, reason in shown.select("stage", "reason").rows()]
    bars = axes.barh(labels, shown["num_repos"].to_list(), color="#0072b2")
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("repos")
    axes.set_title("Left out, by stage and reason")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return f"![left out](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
