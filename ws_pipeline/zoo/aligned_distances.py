"""How far apart models of one shape are once their permutations are undone. Reads repos. No torch.

Aligning is a matching per pair, not a matrix product, so a fixed random sample of pairs is taken:
as many relatives as strangers where there are enough of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ws_pipeline.weights.symmetry.alignment import align_model
from ws_pipeline.weights.symmetry.permutation import permute_state
from ws_pipeline.zoo.weights import flatten_weights, list_floating, read_arrays, read_symmetry

MAX_PAIRS = 32
"""Most pairs of relatives, and of strangers, of one shape. Two ViTs of width 32 take 14 ms of CPU
time; 250 models of three families take 1.8 s with everything else."""

SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PairDistances:
    """Of pairs of models: L2 and cosine distance of all weights, before and after alignment.

    Attributes:
        same_root: Whether both descend from one model ``(pairs,)``.
        l2: ``(pairs, 2)``, before and after.
        cosine: ``(pairs, 2)``, before and after.
    """

    same_root: NDArray[np.bool_]
    l2: NDArray[np.float64]
    cosine: NDArray[np.float64]


def measure_pairs(repos: Sequence[Path], roots: Sequence[str]) -> PairDistances | None:
    """Align a sample of pairs of models.

    Args:
        repos: Folders of models of one shape.
        roots: What each descends from.

    Returns:
        Their distances; None where there is no pair, or no symmetry is known of them.
    """
    pairs = sample_pairs(roots)
    if not pairs:
        return None
    first = read_arrays(repos[0])
    symmetry = read_symmetry(repos[0], first)
    if not symmetry.groups:
        return None
    names = list_floating(first)
    rows: list[list[float]] = []
    for number, (one, other) in enumerate(pairs):
        left, right = read_arrays(repos[one]), read_arrays(repos[other])
        generator = np.random.default_rng((SEED, number))
        found = align_model(left, right, symmetry, generator=generator, names=names)
        aligned = permute_state(right, found.permutation)
        before, after = (_distances(flatten_weights(left), flatten_weights(state))
                         for state in (right, aligned))  # fmt: skip
        rows.append([*before, *after])
    values = np.array(rows)
    same = np.array([roots[one] == roots[other] for one, other in pairs])
    return PairDistances(same_root=same, l2=values[:, ::2], cosine=values[:, 1::2])


def sample_pairs(roots: Sequence[str]) -> list[tuple[int, int]]:
    """Draw pairs of models, relatives first; always the same for the same roots."""
    labels = np.array(roots)
    upper = np.stack(np.triu_indices(len(labels), k=1), axis=1)
    same = labels[upper[:, 0]] == labels[upper[:, 1]]
    generator = np.random.default_rng(SEED)
    drawn = [
        kind[np.sort(generator.permutation(len(kind))[:MAX_PAIRS])]
        for kind in (upper[same], upper[~same])
    ]
    return [(int(one), int(other)) for kind in drawn for one, other in kind]


def _distances(left: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[float, float]:
    norms = max(float(np.linalg.norm(left) * np.linalg.norm(right)), np.finfo(np.float64).tiny)
    return float(np.linalg.norm(left - right)), 1.0 - float(left @ right) / norms
