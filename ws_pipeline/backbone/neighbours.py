"""Which models of a corpus lie nearest to a vector. Pure; no I/O.

Similarity as the retrieval evaluation measures it: the cosine of vectors whose columns are brought
to mean 0 and standard deviation 1 over the corpus, columns that do not vary left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_STD = 1e-12
MAX_Z_SCORE = 10.0
"""A stranger's column must not decide alone; as the probes of the evaluations have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A model of the corpus.

    Attributes:
        model: Its repo id.
        similarity: Cosine, at most 1.
    """

    model: str
    similarity: float


def find_neighbours(
    query: npt.NDArray[np.float64],
    vectors: npt.NDArray[np.float64],
    models: Sequence[str],
    *,
    num: int,
) -> list[Neighbour]:
    """Return the nearest models, nearest first, ties in the corpus' order.

    Args:
        query: ``(features,)``.
        vectors: Of the corpus, ``(models, features)``.
        models: Their repo ids.
        num: How many at most.
    """
    mean, std = vectors.mean(axis=0), vectors.std(axis=0)
    varies = std > MIN_STD * np.maximum(1.0, np.abs(mean))
    every = (np.vstack((query[None], vectors))[:, varies] - mean[varies]) / std[varies]
    every = every.clip(-MAX_Z_SCORE, MAX_Z_SCORE)
    norms = np.linalg.norm(every, axis=1, keepdims=True)
    unit = every / np.where(norms > 0.0, norms, 1.0)
    similarity = unit[1:] @ unit[0]
    order = np.argsort(-np.round(similarity, 9), kind="stable")[:num]
    return [Neighbour(model=models[i], similarity=float(similarity[i])) for i in order]
