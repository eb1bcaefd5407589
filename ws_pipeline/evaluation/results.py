"""The long table that every evaluation writes, and what makes a table valid. No I/O.

One row is one number: which recipe, which evaluation, what was predicted or looked for, on which
slice of the held-out models, from which features, in which metric, with its interval. Comparisons
are rows too: ``metric`` ends in ``_difference`` and ``features`` names the pair ``a|b``; the
interval is of the paired difference ``a - b`` over the same resamples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ws_pipeline.errors import Reason, RefusedError

RESULT_SCHEMA = pl.Schema(
    {
        "recipe": pl.String,
        "evaluation": pl.String,
        "target": pl.String,
        "slice": pl.String,
        "features": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "num_models": pl.Int64,
        "seed": pl.Int64,
    }
)

RESULT_KEY = ("recipe", "evaluation", "target", "slice", "features", "metric", "seed")
"""Columns that name a number; a table holds each name once."""

SLICE_ALL = "all"
DIFFERENCE_SUFFIX = "_difference"
_PAIR_SEPARATOR = "|"

# How far a value may lie outside its own interval before the row is called broken: a percentile
# interval of a skewed statistic need not contain the point estimate, but low <= high must hold.
_INTERVAL_TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A number with its interval; None is "not measured", never zero."""

    value: float | None
    low: float | None = None
    high: float | None = None


NOT_MEASURED = Score(value=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultContext:
    """The columns that all rows of one evaluation share."""

    recipe: str
    evaluation: str
    seed: int

    def row(
        self,
        *,
        target: str,
        slice_name: str,
        features: str,
        metric: str,
        score: Score,
        num_models: int,
    ) -> dict[str, object]:
        """Return one row of the result table."""
        return {
            "recipe": self.recipe,
            "evaluation": self.evaluation,
            "target": target,
            "slice": slice_name,
            "features": features,
            "metric": metric,
            "value": _finite(score.value),
            "low": _finite(score.low),
            "high": _finite(score.high),
            "num_models": num_models,
            "seed": self.seed,
        }


def _finite(value: float | None) -> float | None:
    """Return a plain finite float, or None."""
    return float(value) if value is not None and np.isfinite(value) else None


def join_pair(first: str, second: str) -> str:
    """Return the ``features`` entry of a comparison ``first - second``."""
    return f"{first}{_PAIR_SEPARATOR}{second}"


def split_pair(features: str) -> tuple[str, str]:
    """Return ``(first, second)`` of a comparison; the inverse of :func:`join_pair`."""
    first, _, second = features.partition(_PAIR_SEPARATOR)
    return first, second


def results_frame(rows: Sequence[dict[str, object]]) -> pl.DataFrame:
    """Return rows as a checked result table."""
    return validate_results(pl.DataFrame(list(rows), schema=RESULT_SCHEMA))


def concat_results(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return one checked table of many; an empty one of none."""
    return validate_results(pl.concat([pl.DataFrame(schema=RESULT_SCHEMA), *frames]))


def validate_results(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame unchanged when it is a result table.

    Raises:
        RefusedError: Columns or types differ, a name stands twice, or an interval is upside down.
    """
    if frame.schema != RESULT_SCHEMA:
        raise _refuse(f"must have the columns {dict(RESULT_SCHEMA)}, got {dict(frame.schema)}")
    names = frame.select(*RESULT_KEY, "num_models")
    if sum(names.null_count().row(0)):
        raise _refuse("must name every number: only value, low and high may be null")
    twice = frame.filter(frame.select(RESULT_KEY).is_duplicated())
    if not twice.is_empty():
        raise _refuse(f"must hold each number once, got twice {twice.select(RESULT_KEY).row(0)}")
    if not frame.filter(pl.col("low") > pl.col("high") + _INTERVAL_TOLERANCE).is_empty():
        raise _refuse("must have low <= high in every interval")
    return frame


def _refuse(what: str) -> RefusedError:
    """Return the error for a table that breaks the schema."""
    return RefusedError(f"a result table {what}; rebuild it", reason=Reason.INVALID_CONFIG)
