"""The report's section about the composition of the corpus: one study's curves. Pure; no I/O."""

from collections.abc import Iterator

import polars as pl

from ws_pipeline.evaluation.curves import Axis, curve_figure, curve_rows
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX, SLICE_ALL
from ws_pipeline.evaluation.sections import Block
from ws_pipeline.evaluation.tables import cross_table

EVALUATION = "composition"

NOTE = (
    "Backbones of the recipe tiny, trained for as many steps each on populations of this corpus"
    " that differ in size or in kinds of models; points are means over seeds, and over the"
    " populations of that place, with intervals over lineages and seeds."
)
GAIN_NOTE = (
    "From a few models of one kind: what as many models of more kinds do, and what more models of"
    " one kind do. Gains are the logarithm of the error before over the error after, and"
    " accuracies kept after minus before: above 0 is better, and a difference above 0 says that"
    " diversity does more than size."
)
SHOWN = {
    "relative_error": ("Error on held-out weights", "relative error"),
    "accuracy_kept": ("Weights generated for held-out models", "accuracy kept"),
}
AXES: tuple[tuple[Axis, str], ...] = (
    ("size", "against size at fixed diversity"),
    ("diversity", "against diversity at fixed size"),
)


def composition_blocks(composition: pl.DataFrame) -> Iterator[Block]:
    """Yield a figure per number and axis, then the gains; nothing where the study was not made."""
    rows = composition.filter((pl.col("evaluation") == EVALUATION) & (pl.col("slice") == SLICE_ALL))
    points = curve_rows(rows)
    for metric, (heading, label) in SHOWN.items():
        part = points.filter(pl.col("metric") == metric)
        for axis, where in AXES:
            figure = curve_figure(part, axis=axis, label=label)
            if figure is not None:
                yield Block(heading=f"{heading}, {where}", note=NOTE, figure=figure)
    gains = rows.filter(pl.col("metric").str.contains("_gain", literal=True))
    if not gains.is_empty():
        alone = ~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX)
        yield Block(
            heading="Diversity or size",
            note=GAIN_NOTE,
            tables=tuple(
                cross_table(part, down="features", across="metric", caption=caption)
                for part, caption in (
                    (gains.filter(alone), "Gains"),
                    (gains.filter(~alone), "Gain of diversity minus gain of size"),
                )
            ),
        )
