"""How much of the models' differences each generating factor explains. numpy; no I/O.

The share is that of a one-way analysis of variance: between the levels of a factor, over all. Of
vectors (all weights, right and wrong answers) squares are summed over the coordinates, which is the
pseudo-F's R2 of Euclidean distances. A factor with many levels explains something by chance, so the
adjusted share takes off what chance gives on average; ``seed``, which only numbers the replicate,
is the control that should come out at nothing.

Sources: eta squared and epsilon squared, Kelley, "An unbiased correlation ratio measure", PNAS 21
(1935), https://doi.org/10.1073/pnas.21.9.554; of distances, Anderson 2001,
https://doi.org/10.1111/j.1442-9993.2001.01070.pp.x.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

MIN_MODELS = 6
"""Fewest models of a group whose factors are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """What one factor explains.

    Attributes:
        share: Between-level over total sum of squares, in [0, 1].
        adjusted: The share less what chance gives on average; may be slightly negative.
    """

    share: float
    adjusted: float


def explain(values: NDArray[np.floating], levels: Sequence[object]) -> Explained | None:
    """Split the variance of models by the levels of one factor.

    Args:
        values: One number per model ``(models,)``, or one vector ``(models, features)``.
        levels: The factor's level of each model.

    Returns:
        None where there is nothing to explain, one level only, or no replicate of any level.
    """
    table = np.asarray(values, dtype=np.float64).reshape(len(levels), -1)
    _, codes = np.unique([str(level) for level in levels], return_inverse=True)
    sizes = np.bincount(codes)
    num_models, num_levels = len(levels), len(sizes)
    centred = table - table.mean(axis=0)
    total = float(np.einsum("ij,ij->", centred, centred))
    if not 1 < num_levels < num_models or total <= 0:
        return None
    sums = np.zeros((num_levels, table.shape[1]))
    np.add.at(sums, codes, centred)
    share = float((np.einsum("ij,ij->i", sums, sums) / sizes).sum()) / total
    share = min(share, 1.0)
    adjusted = 1 - (1 - share) * (num_models - 1) / (num_models - num_levels)
    return Explained(share=share, adjusted=adjusted)


def varied_factors(members: pl.DataFrame) -> Mapping[str, list[str]]:
    """List the factors that differ among models, with the level of each model.

    Fine-tunes have ``parent`` beside their own factors.

    Args:
        members: Rows of a zoo's index.
    """
    rows = [json.loads(text) for text in members["factors"]]
    names = sorted({name for row in rows for name in row})
    levels = {name: [str(row.get(name)) for row in rows] for name in names}
    if "finetune" in members["stage"]:
        levels["parent"] = members["root"].to_list()
    return {name: values for name, values in levels.items() if len(set(values)) > 1}
