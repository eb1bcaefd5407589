"""Which pre-trained model a fine-tune came from, told from weights alone. Reads a zoo's folder.

The nearest candidate is the answer. Under a permutation of its hidden units a fine-tune is as far
from its parent as from strangers, until it is aligned; heads that were started afresh are left out.
Source: lineage recovery on https://arxiv.org/abs/2504.10231, section 5. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binomtest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.weights.spectra import singular_values
from ws_pipeline.weights.symmetry.alignment import align_model
from ws_pipeline.weights.symmetry.permutation import draw_permutation, permute_state
from ws_pipeline.zoo.heads import HEAD_PREFIXES, head_names
from ws_pipeline.zoo.index import REPOS_FOLDER, read_index
from ws_pipeline.zoo.weights import (
    Weights,
    flatten_weights,
    list_floating,
    read_arrays,
    read_symmetry,
)

Distance = Literal["l2", "cosine", "spectra"]

PARENTS_SCHEMA = {
    "name": pl.String,  # the fine-tune
    "parent": pl.String,  # the truth
    "found": pl.String,  # the nearest candidate
    "rank": pl.Int64,  # of the truth among the candidates, 1 for the nearest
    "num_candidates": pl.Int64,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentSearch:
    """How parents are searched for.

    Attributes:
        distance: Between weights; "spectra" is L2 between singular values, which no permutation
            changes.
        permute: Whether fine-tunes are permuted at random before.
        align: Whether they are aligned to each candidate.
        seed: Of permutations and alignments.
    """

    distance: Distance = "l2"
    permute: bool = False
    align: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recall:
    """Share of parents found, with a 95 % interval (Wilson), beside that of guessing."""

    value: float
    low: float
    high: float
    chance: float


def recover_parents(folder: Path, family: str, search: ParentSearch) -> pl.DataFrame:
    """Search the parent of every fine-tune of a family among its pre-trained models.

    Returns:
        A row of :data:`PARENTS_SCHEMA` per finished fine-tune.

    Raises:
        MissingInputError: When the zoo has no such fine-tunes.
    """
    index = read_index(folder).filter(pl.col("is_final"), family=family)
    children = index.filter(stage="finetune")
    if children.is_empty():
        raise MissingInputError(f"{folder} must hold fine-tunes of {family!r}, it has none.")
    repos = folder / REPOS_FOLDER
    candidates = {
        name: read_arrays(repos / name) for name in index.filter(stage="pretrain")["name"]
    }
    rows = []
    for number, (name, root) in enumerate(children.select("name", "root").iter_rows()):
        generator = np.random.default_rng((search.seed, number))
        distances = _measure(repos / name, family, candidates, search, generator)
        ranked = sorted(distances, key=lambda candidate: (distances[candidate], candidate))
        if root in distances:
            rank, count = ranked.index(root) + 1, len(ranked)
            rows.append((name, root, ranked[0], rank, count))
    return pl.DataFrame(rows, schema=PARENTS_SCHEMA, orient="row")


def summarise_recall(table: pl.DataFrame) -> Recall:
    """Return recall@1 of a table of :func:`recover_parents`."""
    hits = int((table["rank"] == 1).sum())
    interval = binomtest(hits, table.height).proportion_ci(method="wilson")
    chance = float(np.mean(1.0 / table["num_candidates"].to_numpy()))
    value = hits / table.height
    return Recall(value=value, low=float(interval.low), high=float(interval.high), chance=chance)


SEARCHES: Mapping[str, ParentSearch] = {
    "L2": ParentSearch(),
    "cosine": ParentSearch(distance="cosine"),
    "spectra": ParentSearch(distance="spectra"),
    "L2, permuted": ParentSearch(permute=True),
    "cosine, permuted": ParentSearch(distance="cosine", permute=True),
    "spectra, permuted": ParentSearch(distance="spectra", permute=True),
    "L2, permuted, aligned": ParentSearch(permute=True, align=True),
}
"""What a zoo's report compares. Permuted fine-tunes are what a stranger may have uploaded."""


def compare_searches(
    folder: Path, family: str, searches: Mapping[str, ParentSearch] = SEARCHES
) -> pl.DataFrame:
    """Search the parents of a family's fine-tunes in several ways.

    Returns:
        A row per search: search, num_children, recall, low, high, chance.
    """
    rows = []
    for name, search in searches.items():
        table = recover_parents(folder, family, search)
        recall = summarise_recall(table)
        rows.append((name, table.height, recall.value, recall.low, recall.high, recall.chance))
    columns = ["search", "num_children", "recall", "low", "high", "chance"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _measure(
    repo: Path,
    family: str,
    candidates: Mapping[str, Weights],
    search: ParentSearch,
    generator: np.random.Generator,
) -> dict[str, float]:
    """Return the distance of one fine-tune to every candidate that it may come from."""
    child = read_arrays(repo)
    symmetry = read_symmetry(repo, child)
    if search.permute:
        shapes = {name: array.shape for name, array in child.items()}
        child = permute_state(child, draw_permutation(symmetry, shapes, generator=generator))
    distances: dict[str, float] = {}
    for name, candidate in candidates.items():
        shared = _list_shared(child, candidate, family)
        if not shared:
            continue
        moved: Weights = child
        if search.align:
            found = align_model(candidate, child, symmetry, generator=generator, names=shared)
            moved = permute_state(child, found.permutation)
        one, other = (_vector(weights, shared, search.distance) for weights in (moved, candidate))
        distances[name] = _distance(one, other, search.distance)
    return distances


def _list_shared(child: Weights, candidate: Weights, family: str) -> list[str]:
    """List tensors of equal shape; none where the bodies differ and not just their heads."""
    names = list_floating(child)
    others = set(list_floating(candidate))
    shared = [
        name for name in names if name in others and child[name].shape == candidate[name].shape
    ]
    differing = {*names, *others} - set(shared)
    return [] if differing - _list_heads(family, [*names, *others]) else shared


def _list_heads(family: str, names: Sequence[str]) -> set[str]:
    return set(head_names(family, names)) if HEAD_PREFIXES[family] else set()


def _vector(weights: Weights, names: Sequence[str], distance: Distance) -> NDArray[np.float64]:
    """Return what distances are taken between: the weights, or the singular values of each."""
    if distance != "spectra":
        return flatten_weights({name: weights[name] for name in names})
    matrices = (weights[name].reshape(len(weights[name]), -1).astype(np.float64) for name in names)
    return np.concatenate([singular_values(matrix) for matrix in matrices])


def _distance(one: NDArray[np.float64], other: NDArray[np.float64], distance: Distance) -> float:
    if distance != "cosine":
        return float(np.linalg.norm(one - other))
    norms = max(float(np.linalg.norm(one) * np.linalg.norm(other)), np.finfo(np.float64).tiny)
    return 1.0 - float(one @ other) / norms
