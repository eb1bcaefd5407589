"""Which models of a corpus lie nearest to a vector. Pure; no I/O.

Similarity as the retrieval evaluation measures it: the cosine of vectors as they are, whose blocks
have one scale already (:mod:`ws_pipeline.backbone.embedding_blocks`). Standardised over a corpus,
columns that say how a model was trained would outweigh those that say which one it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
    every = np.vstack((query[None], vectors))
    norms = np.linalg.norm(every, axis=1, keepdims=True)
    unit = every / np.where(norms > 0.0, norms, 1.0)
    similarity = unit[1:] @ unit[0]
    order = np.argsort(-np.round(similarity, 9), kind="stable")[:num]
    return [Neighbour(model=models[i], similarity=float(similarity[i])) for i in order]
