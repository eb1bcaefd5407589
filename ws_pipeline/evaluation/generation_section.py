"""The report's section about generated weights: one block per case. Pure; no I/O."""

from collections.abc import Iterator

import polars as pl

from ws_pipeline.evaluation.dot_plots import grouped_figure
from ws_pipeline.evaluation.generation import (
    ACCURACY,
    DISTANCE,
    EVALUATION,
    LOSS,
    MEAN_OF_DRAWS,
    OVERLAP,
    STEP_SLICE,
    STEPS_TO_TARGET,
)
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX
from ws_pipeline.evaluation.sections import Block
from ws_pipeline.evaluation.tables import Table, cross_table

NOTE = (
    "Anchors are trained models that generation starts from; every line is one way to start."
    " Means over seeds (anchors, draws, order of data) with t intervals. Everything that draws has"
    " as many candidates, of which validation chooses; BatchNorm statistics are estimated anew for"
    " all. A method that lies within the intervals of anchor-noise is no better than noise."
)
MEMORY_NOTE = (
    "Distance: L2 to the nearest training model, in units of its norm. Error overlap: share of the"
    " errors of either that both make alike; best-training-model shows what independent models"
    " score. Steps to target count to 95 % of the accuracy that scratch ends with, the budget where"
    " it is never reached."
)


def generation_blocks(mine: pl.DataFrame) -> Iterator[Block]:
    """Yield accuracies by step, then steps to target and memorisation, case by case."""
    rows = mine.filter(pl.col("evaluation") == EVALUATION)
    plain = rows.filter(~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX))
    for (case,), part in plain.group_by("target", maintain_order=True):
        accuracy = part.filter(pl.col("metric") == ACCURACY)
        methods = tuple(accuracy["features"].unique(maintain_order=True))
        first = accuracy.filter(pl.col("slice") == f"{STEP_SLICE}0")
        differences = rows.filter(
            (pl.col("target") == case)
            & pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX)
            & pl.col("slice").is_in([f"{STEP_SLICE}0", "all"])
        )
        yield Block(
            heading=f"Generated from {case}",
            note=NOTE,
            figure=grouped_figure(first, by="slice", features=methods),
            tables=(_by_step(accuracy, f"Test accuracy, {case}"),),
            folded=(
                _by_step(part.filter(pl.col("metric") == LOSS), f"Test loss, {case}"),
                cross_table(
                    differences,
                    down="features",
                    across="metric",
                    caption="Paired differences: accuracy before any step, steps to target",
                ),
            ),
        )
        memory = part.filter(
            pl.col("metric").is_in([MEAN_OF_DRAWS, STEPS_TO_TARGET, DISTANCE, OVERLAP])
        )
        yield Block(
            heading=f"Cost and memorisation, {case}",
            note=MEMORY_NOTE,
            tables=(
                cross_table(memory, down="features", across="metric", caption="Draws and copies"),
            ),
        )


def _by_step(rows: pl.DataFrame, caption: str) -> Table:
    """Return methods down and steps across."""
    step = pl.col("slice").str.strip_prefix(STEP_SLICE)
    named = rows.with_columns(metric=pl.format("step {}", step))
    return cross_table(named, down="features", across="metric", caption=caption)
