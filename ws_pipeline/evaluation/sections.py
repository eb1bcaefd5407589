"""The report's sections: which figure and tables stand under which heading. No I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from ws_pipeline.evaluation.bar_plots import dropped_figure
from ws_pipeline.evaluation.dot_plots import Figure, grouped_figure, score_figure
from ws_pipeline.evaluation.features import (
    HYPER_PARAMETERS,
    RANDOM,
    STATISTICS,
    UNTRAINED,
    is_control,
    is_plain,
)
from ws_pipeline.evaluation.labels import feature_label, target_label
from ws_pipeline.evaluation.leaderboard import build_leaderboard
from ws_pipeline.evaluation.lineage_recovery import DIRECTION, EDGE_F1
from ws_pipeline.evaluation.properties import FAMILY_SLICE, GOOD_SLICE
from ws_pipeline.evaluation.property_fits import FAMILY_FIT_SLICE, HELD_OUT_SLICE
from ws_pipeline.evaluation.reconstruction import MEAN_ERROR, ROLE_SLICE
from ws_pipeline.evaluation.report_input import ReportInput
from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX, SLICE_ALL
from ws_pipeline.evaluation.robustness import COPIES, ORIGINAL, PARENT
from ws_pipeline.evaluation.scatter_plots import loss_figure, map_figure, prediction_figure
from ws_pipeline.evaluation.tables import (
    Table,
    count_table,
    cross_table,
    leaderboard_table,
    score_table,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A figure and tables under one heading; ``note`` says how to read them."""

    heading: str
    note: str = ""
    figure: Figure | None = None
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def left_out_blocks(report: ReportInput) -> Iterator[Block]:
    """Yield what did not go in."""
    if len(report.dropped):
        table = count_table(
            report.dropped,
            caption="Repos that did not go in",
            by=("stage", "reason"),
            count="num_repos",
        )
        yield Block(
            heading="What was dropped, and why",
            note=(
                "Each repo counts once, at the stage that refused it; the ledger names each with"
                " its reason and a sentence."
            ),
            figure=dropped_figure(report.dropped),
            folded=(table,),
        )
    if len(report.missing):
        table = count_table(
            report.missing,
            caption="Models that an evaluation could not use",
            by=("target", "reason"),
            count="num_models",
        )
        yield Block(heading="What an evaluation could not use", tables=(table,))


def report_sections(report: ReportInput, mine: pl.DataFrame, results: pl.DataFrame) -> list[Any]:
    """Return headings with their blocks; those without content are left out."""
    # These have Block of here.
    from ws_pipeline.evaluation.composition_section import composition_blocks
    from ws_pipeline.evaluation.generation_section import generation_blocks

    sections = (
        ("Properties", list(_property_blocks(report, mine))),
        ("Relatives", [*_retrieval_blocks(mine), *_lineage_blocks(mine), *_drift_blocks(mine)]),
        ("Reconstruction", list(_reconstruction_blocks(mine))),
        ("Generated weights", list(generation_blocks(mine))),
        ("Composition of the corpus", list(composition_blocks(report.composition))),
        ("Latent map", list(_map_blocks(report))),
        ("Training", list(_training_blocks(report))),
        ("Recipes side by side", list(_leaderboard_blocks(results))),
    )
    return [{"heading": heading, "blocks": blocks} for heading, blocks in sections if blocks]


def _property_blocks(report: ReportInput, mine: pl.DataFrame) -> Iterator[Block]:
    """Yield per target: scores, scores by family, predictions."""
    rows = mine.filter(pl.col("evaluation") == "properties")
    for (target,), part in rows.group_by("target", maintain_order=True):
        label = target_label(str(target))
        r2 = part.filter(pl.col("metric") == "r2")
        overall = r2.filter(pl.col("slice") == SLICE_ALL)
        yield Block(
            heading=f"Predicting {label}",
            note=(
                "Ridge probes on held-out lineages: 1 is perfect, 0 is what the held-out mean"
                " scores. Lines are 95 % intervals over lineages; an arrow at the left edge stands"
                " for a score below the axis."
            ),
            figure=score_figure(overall),
            tables=(score_table(part, caption=f"{label.capitalize()}, all held-out models"),),
            folded=(_difference_table(part, f"{label.capitalize()}: paired differences"),),
        )
        yield from _family_blocks(r2, label)
        yield from _held_out_blocks(r2, label)
        learned = [name for name in overall["features"] if not is_control(name) and is_plain(name)]
        chosen = report.predictions.filter(
            (pl.col("target") == target)
            & (pl.col("slice") == SLICE_ALL)
            & pl.col("features").is_in(learned[:1])
        )
        if "recipe" in chosen.columns and len(mine):
            chosen = chosen.filter(pl.col("recipe") == mine["recipe"][0])
        figure = prediction_figure(chosen)
        if figure is not None:
            yield Block(
                heading=f"Predicted against true {label}",
                note=f"From the {feature_label(learned[0])}, one probe for all families.",
                figure=figure,
            )


def _family_blocks(r2: pl.DataFrame, label: str) -> Iterator[Block]:
    """Yield scores by family: of probes of their own, and of the one probe for all."""
    shown = _shown_features(r2)
    for prefix, what in (
        (FAMILY_FIT_SLICE, "a probe fitted on the family alone"),
        (FAMILY_SLICE, "the probe of all families, scored within one"),
    ):
        part = r2.filter(pl.col("slice").str.starts_with(prefix) & pl.col("features").is_in(shown))
        if part["value"].null_count() == len(part):
            continue
        table = cross_table(part, down="slice", across="features", caption=f"R²: {what}")
        yield Block(
            heading=f"{label.capitalize()} by family: {what}",
            figure=grouped_figure(part, by="slice", features=shown),
            folded=(table,),
        )


def _shown_features(rows: pl.DataFrame) -> tuple[str, ...]:
    """Return representations that ridge reads, then the controls that matter."""
    found = rows["features"].unique(maintain_order=True)
    learned = [name for name in found if not is_control(name) and "@" not in name]
    return (*learned, STATISTICS, HYPER_PARAMETERS, UNTRAINED)


def _held_out_blocks(r2: pl.DataFrame, label: str) -> Iterator[Block]:
    """Yield scores where the probe never saw the model's family, data set or learning rate."""
    prefixes = pl.col("slice").str.starts_with(HELD_OUT_SLICE) | (pl.col("slice") == GOOD_SLICE)
    part = r2.filter(prefixes & pl.col("features").is_in(_shown_features(r2)))
    if part["value"].null_count() == len(part):
        return
    table = cross_table(part, down="slice", across="features", caption="R²: harder slices")
    yield Block(
        heading=f"{label.capitalize()} on harder slices",
        note=(
            "The better half: models at least as accurate as their family's median training model."
            " Never seen: each model is predicted by a probe fitted without any model of its"
            " family, data set or learning rate."
        ),
        figure=grouped_figure(part, by="slice", features=_shown_features(r2)),
        folded=(table,),
    )


def _retrieval_blocks(mine: pl.DataFrame) -> Iterator[Block]:
    """Yield recall of relatives."""
    rows = mine.filter(
        (pl.col("evaluation") == "retrieval") & (pl.col("slice") == SLICE_ALL)
    ).filter(pl.col("value").is_not_null())
    if rows.is_empty():
        return
    scores = rows.filter(~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX))
    metric = str(scores["metric"][0])
    shown = scores["features"].unique(maintain_order=True).to_list()
    shown = [name for name in shown if not is_control(name)] + [STATISTICS, UNTRAINED, RANDOM]
    tables = tuple(
        cross_table(part, down="features", across="metric", caption=f"Finding {target_label(t)}")
        for (t,), part in scores.group_by("target", maintain_order=True)
    )
    yield Block(
        heading="Nearest neighbours of held-out models",
        note=(
            "Share of held-out models with a relative among their k nearest, by cosine of"
            " standardised vectors, among all other models of the corpus; mAP: how early all of"
            " them stand. Chance is exact."
        ),
        figure=grouped_figure(
            scores.filter(pl.col("metric") == metric), by="target", features=shown
        ),
        tables=tables,
        folded=(_difference_table(rows, "Paired differences"),),
    )


def _lineage_blocks(mine: pl.DataFrame) -> Iterator[Block]:
    """Yield how well edges of the lineage graph are recovered."""
    rows = mine.filter((pl.col("evaluation") == "lineage") & pl.col("value").is_not_null())
    scores = rows.filter(~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX))
    edges = scores.filter(pl.col("metric") == EDGE_F1)
    if edges.is_empty():
        return
    direction = scores.filter(pl.col("metric") == DIRECTION)
    yield Block(
        heading="Lineage told from weights alone",
        note=(
            "Each held-out model is joined to its nearest of the family if it is near enough, as"
            " chosen on other lineages; truth: uncontradicted claims and proven edges. Direction:"
            " of the two ends of a true edge, the one with the larger weights is the child."
        ),
        figure=score_figure(edges),
        tables=tuple(
            cross_table(part, down="features", across="metric", caption=caption)
            for part, caption in ((edges, "Edges"), (direction, "Direction"))
            if len(part)
        ),
    )


def _drift_blocks(mine: pl.DataFrame) -> Iterator[Block]:
    """Yield how representations take altered copies."""
    rows = mine.filter(
        (pl.col("evaluation") == "robustness")
        & pl.col("value").is_not_null()
        & ~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX)
    )
    if rows.is_empty():
        return
    captions = {
        COPIES: "Drift",
        ORIGINAL: "The original is nearest",
        PARENT: "The parent is nearest",
    }
    parts = ((rows.filter(pl.col("target") == target), text) for target, text in captions.items())
    yield Block(
        heading="Copies that are still the same model",
        note=(
            "A permutation of hidden units leaves the function as it is, a change of dtype nearly"
            " so. Drift is the distance from the original, median: 0 is untouched, 1 is as far as"
            " the nearest stranger. Then the share of copies whose nearest model is the original,"
            " and of fine-tunes whose nearest known parent is theirs. L2 after alignment matches"
            " the units of every candidate first."
        ),
        tables=tuple(
            cross_table(part, down="slice", across="features", caption=caption)
            for part, caption in parts
            if len(part)
        ),
    )


def _reconstruction_blocks(mine: pl.DataFrame) -> Iterator[Block]:
    """Yield reconstruction errors, overall, by role and by family."""
    rows = mine.filter(
        (pl.col("evaluation") == "reconstruction")
        & (pl.col("metric") == "relative_error")
        & pl.col("value").is_not_null()
    )
    if rows.is_empty():
        return
    shown = [n for n in rows["features"].unique(maintain_order=True) if not is_control(n)]
    names = (*shown, UNTRAINED)
    for prefix, what in ((ROLE_SLICE, "role of the layer"), (FAMILY_SLICE, "family")):
        part = rows.filter(pl.col("slice").str.starts_with(prefix) | (pl.col("slice") == SLICE_ALL))
        part = part.filter(pl.col("features").is_in(names))
        yield Block(
            heading=f"Error on held-out weights by {what}",
            note=(
                "Relative error of encoding and decoding, median over layers and models: 0 is"
                " exact, 1 is what predicting the layer's mean scores."
            ),
            figure=grouped_figure(part, by="slice", features=names, reference=MEAN_ERROR),
            tables=(cross_table(part, down="slice", across="features", caption=f"By {what}"),),
        )


def _map_blocks(report: ReportInput) -> Iterator[Block]:
    """Yield the map of all models."""
    figure = map_figure(report.corpus, report.embeddings)
    if figure is not None:
        yield Block(
            heading="Models by their embedding",
            note="First two principal components; colour is the family, hover for the repo.",
            figure=figure,
        )


def _training_blocks(report: ReportInput) -> Iterator[Block]:
    """Yield training curves."""
    figure = loss_figure(report.losses)
    if figure is not None:
        yield Block(heading="Loss", figure=figure)


def _leaderboard_blocks(results: pl.DataFrame) -> Iterator[Block]:
    """Yield all recipes, when there are several."""
    recipes = results["recipe"].unique(maintain_order=True).to_list()
    if len(recipes) > 1:
        table = leaderboard_table(build_leaderboard(results), recipes)
        yield Block(heading="All numbers over all held-out models", folded=(table,))


def _difference_table(rows: pl.DataFrame, caption: str) -> Table:
    """Return the comparisons of one target over all held-out models."""
    part = rows.filter(
        (pl.col("slice") == SLICE_ALL) & pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX)
    )
    return cross_table(part, down="features", across="metric", caption=caption)
