"""The long table that a diversity report is made of, and its rows. numpy and polars; no I/O."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.zoo.factor_effects import explain

DIVERSITY_SCHEMA = {
    "family": pl.String,
    "space": pl.String,  # weights or behaviour
    "metric": pl.String,
    "group": pl.String,  # same_root, other_root, a tensor, a data set, or "set/stage: factor=level"
    "statistic": pl.String,  # of the values, or the share of their variance that a factor explains
    "value": pl.Float64,
    "num_values": pl.Int64,
}
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}

Row = dict[str, object]
Values = NDArray[np.float64]
Pairs = dict[tuple[str, str], list[Values]]
"""Values of pairs of models by metric and group."""


def describe(family: str, space: str, metric: str, group: str, values: Values) -> Iterator[Row]:
    """Turn values into one row per statistic; none when there are no finite values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    statistics = {"mean": values.mean(), "std": values.std()}
    statistics |= {name: np.quantile(values, q) for name, q in QUANTILES.items()}
    for statistic, value in statistics.items():
        yield make_row(family, space, metric, group, statistic, float(value), len(values))


def describe_explained(  # noqa: PLR0917 - the columns of the table, in their order
    family: str, space: str, metric: str, group: str, values: Values, levels: list[str]
) -> Iterator[Row]:
    """Turn what a factor explains of values into rows; none when there is nothing to explain."""
    places = np.flatnonzero(np.isfinite(values.reshape(len(levels), -1)).all(axis=1))
    kept = [levels[place] for place in places]
    found = explain(values[places], kept) if len(kept) > 1 else None
    if found is not None:
        shares = {"explained": found.share, "explained_adjusted": found.adjusted}
        for statistic, value in shares.items():
            yield make_row(family, space, metric, group, statistic, value, len(kept))


def make_row(  # noqa: PLR0917 - the columns of the table, in their order
    family: str, space: str, metric: str, group: str, statistic: str, value: float, num_values: int
) -> Row:
    """Make one row of :data:`DIVERSITY_SCHEMA`."""
    return {
        "family": family,
        "space": space,
        "metric": metric,
        "group": group,
        "statistic": statistic,
        "value": value,
        "num_values": num_values,
    }


def collect_pairs(into: Pairs, metric: str, matrix: Values, roots: NDArray[Any]) -> None:
    """Sort the upper triangle by whether the two models share their lineage's root."""
    upper = np.triu(np.ones(matrix.shape, dtype=bool), k=1)
    same = roots[:, None] == roots[None, :]
    for group, chosen in (("same_root", upper & same), ("other_root", upper & ~same)):
        into.setdefault((metric, group), []).append(matrix[chosen])


def describe_pairs(family: str, space: str, pairs: Pairs) -> Iterator[Row]:
    """Turn all collected pairs into rows."""
    for (metric, group), parts in pairs.items():
        yield from describe(family, space, metric, group, np.concatenate(parts))
