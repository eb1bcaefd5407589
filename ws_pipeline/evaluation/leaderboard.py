"""All recipes side by side, from their result tables. Pure; no I/O."""

import polars as pl

from ws_pipeline.evaluation.results import DIFFERENCE_SUFFIX, SLICE_ALL, validate_results

LEADERBOARD_KEY = ("evaluation", "target", "slice", "metric", "features")
"""One line of the leaderboard."""

LOW_SUFFIX = ":low"
HIGH_SUFFIX = ":high"


def build_leaderboard(
    results: pl.DataFrame, *, slices: tuple[str, ...] | None = (SLICE_ALL,)
) -> pl.DataFrame:
    """Return one line per number and three columns per recipe: value, low and high.

    Over several training seeds of one recipe the value is the mean and the interval is the hull of
    the seeds' intervals: it never looks surer than the least sure run.

    Args:
        results: Result table of any number of recipes.
        slices: Which slices to show; all where None.

    Returns:
        LEADERBOARD_KEY, then ``<recipe>``, ``<recipe>:low``, ``<recipe>:high`` by recipe name.
        Comparisons (``_difference``) are left out.
    """
    rows = validate_results(results).filter(~pl.col("metric").str.ends_with(DIFFERENCE_SUFFIX))
    if slices is not None:
        rows = rows.filter(pl.col("slice").is_in(slices))
    runs = rows.group_by(*LEADERBOARD_KEY, "recipe", maintain_order=True).agg(
        pl.col("value").mean(), pl.col("low").min(), pl.col("high").max()
    )
    board = runs.select(LEADERBOARD_KEY).unique(maintain_order=True)
    for recipe in runs["recipe"].unique().sort():
        columns = runs.filter(pl.col("recipe") == recipe).select(
            *LEADERBOARD_KEY,
            pl.col("value").alias(recipe),
            pl.col("low").alias(recipe + LOW_SUFFIX),
            pl.col("high").alias(recipe + HIGH_SUFFIX),
        )
        board = board.join(columns, on=LEADERBOARD_KEY, how="left", maintain_order="left")
    return board
