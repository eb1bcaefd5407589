"""The report: one HTML file that a reader understands without anything else. Writes that file.

plotly.js is inlined once; nothing is fetched, and a content security policy in the page keeps it
so. Names of repos and families come from strangers: the template escapes everything, figures escape
their labels, and data enter the page as JSON that cannot close its script element.
"""

import os
from pathlib import Path

import polars as pl

from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.report_input import (
    DROPPED_SCHEMA,
    EMBEDDING_SCHEMA,
    LOSS_SCHEMA,
    ReportInput,
)
from ws_pipeline.evaluation.results import validate_results
from ws_pipeline.evaluation.sections import left_out_blocks, report_sections
from ws_pipeline.evaluation.summary import (
    standing_limitations,
    summarize_findings,
    summary_sentences,
)
from ws_pipeline.evaluation.tables import corpus_table, provenance_table
from ws_pipeline.evaluation.templating import render_page, script_json
from ws_pipeline.evaluation.verdicts import verdict_grid

__all__ = [
    "DROPPED_SCHEMA",
    "EMBEDDING_SCHEMA",
    "LOSS_SCHEMA",
    "ReportInput",
    "render_report",
    "script_json",
    "write_report",
]


def write_report(path: Path, report: ReportInput) -> None:
    """Write the report; a reader sees the old file or the new one, never half of one.

    Raises:
        MissingInputError: There is no result to report.
    """
    page = render_report(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def render_report(report: ReportInput) -> str:
    """Return the page.

    Raises:
        MissingInputError: There is no result to report.
    """
    results = validate_results(report.results)
    if results.is_empty():
        raise MissingInputError(
            "a report needs at least one result, got an empty table;"
            " run `ws-pipeline evaluate` first"
        )
    recipe = report.recipe or str(results["recipe"][0])
    mine = results.filter(pl.col("recipe") == recipe)
    mine = mine.filter(pl.col("seed") == pl.col("seed").min())  # the leaderboard has all seeds
    findings = summarize_findings(mine, recipe=recipe)
    return render_page(
        "report.html.j2",
        title=report.title,
        recipe=recipe,
        lead=_lead(report.corpus),
        sentences=summary_sentences(findings),
        verdicts=verdict_grid(findings),
        limitations=[*standing_limitations(results, recipe=recipe), *report.limitations],
        provenance=provenance_table(report.provenance),
        corpus=corpus_table(report.corpus),
        dropped=list(left_out_blocks(report)),
        sections=report_sections(report, mine, results),
        atlas=report.atlas,
    )


def _lead(corpus: pl.DataFrame) -> str:
    """Return the sentence under the title."""
    counts = {name: int((corpus["split"] == name).sum()) for name in ("train", "val", "test")}
    return (
        f"{len(corpus)} models of {corpus['family'].n_unique()} families from"
        f" {corpus['lineage_root'].n_unique()} lineages: {counts['train']} to train on,"
        f" {counts['val']} to choose by, {counts['test']} held out. {_split_sentence(corpus)}"
    )


def _split_sentence(corpus: pl.DataFrame) -> str:
    """Return whether the splits follow lineage, as counted."""
    splits = corpus.group_by("lineage_root").agg(pl.col("split").n_unique())
    torn = int((splits["split"] > 1).sum())
    if torn:
        return f"Beware, held-out models leak: lineages that are in more than one split: {torn}."
    return "No lineage is in two splits."
