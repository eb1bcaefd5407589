"""Matching the units of one group in two models, everything else as it is. No I/O.

One linear sum assignment over inner products of units. Units that have an inside (attention heads)
are compared at the best match of their insides, for which one matrix of inner products per axis is
enough. Not here: going from group to group (``alignment``).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ws_pipeline.weights.symmetry.groups import ChildGroup, GroupAxis, PermutationGroup
from ws_pipeline.weights.symmetry.permutation import Indices, Orders, State

MIN_GAIN = 1e-6
"""Relative gain of inner product below which a step is rounding: float32 sums of 1e7 products."""
MAX_INNER_ROUNDS = 20
"""Rounds over the children of a pair of units; one settles those that share no axis."""

Gram = npt.NDArray[Any]
"""Inner products of the entries along an axis of one model with those of another."""


def match_group(
    target: State, source: State, group: PermutationGroup, kept: Sequence[bool]
) -> Orders | None:
    """Return the best order of a group's units, everything else as it is; None for no gain.

    Args:
        target: Whose order is wanted.
        source: Whose units are reordered.
        group: Of both.
        kept: Of each of the group's axes whether it counts.
    """
    grams = [
        _multiply(target[axis.tensor], source[axis.tensor], axis, group) if keep else None
        for axis, keep in zip(group.axes, kept, strict=True)
    ]
    present = [gram for gram in grams if gram is not None]
    if not present:
        return None
    inner: dict[str, npt.NDArray[np.intp]] = {}
    if group.children:
        scores, inner = _match_pairs(group, grams)
    else:
        scores = np.sum(present, axis=0, dtype=np.float64)
    rows, order = linear_sum_assignment(scores, maximize=True)
    now = sum(float(np.trace(gram)) for gram in present)
    scale = sum(float(np.abs(np.diagonal(gram)).sum()) for gram in present)
    if float(scores[rows, order].sum()) - now <= MIN_GAIN * max(scale, np.finfo(np.float64).tiny):
        return None
    orders: dict[str, Indices] = {group.name: order}
    for child in group.children:
        # Children act before their units move: what unit j holds is ordered as its new place asks.
        parts = np.empty((group.size, child.size), dtype=np.intp)
        parts[order] = inner[child.name][rows, order]
        orders[f"{group.name}/{child.name}"] = parts
    return orders


def _match_pairs(
    group: PermutationGroup, grams: Sequence[Gram | None]
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.intp]]]:
    """Score every pair of units at its best inner match, and keep that match of each child."""
    size = group.size
    scores = np.zeros((size, size))
    inner = {
        child.name: np.empty((size, size, child.size), dtype=np.intp) for child in group.children
    }
    for row in range(size):
        for column in range(size):
            blocks = [
                None
                if gram is None
                else gram[
                    row * axis.inner : (row + 1) * axis.inner,
                    column * axis.inner : (column + 1) * axis.inner,
                ]
                for axis, gram in zip(group.axes, grams, strict=True)
            ]
            score, orders = _match_children(group.children, blocks)
            scores[row, column] = score
            for name, order in orders.items():
                inner[name][row, column] = order
    return scores, inner


def _match_children(
    children: Sequence[ChildGroup], blocks: list[Gram | None]
) -> tuple[float, dict[str, Indices]]:
    """Match the inside of one unit to that of another by coordinate descent over the children."""
    orders: dict[str, Indices] = {child.name: np.arange(child.size) for child in children}
    places = [part.of for child in children for part in child.axes]
    for _ in range(1 if len(set(places)) == len(places) else MAX_INNER_ROUNDS):
        gained = False
        for child in children:
            scores = _score_parts(child, blocks)
            rows, order = linear_sum_assignment(scores, maximize=True)
            gain = float(scores[rows, order].sum() - np.trace(scores))
            if gain > MIN_GAIN * float(np.abs(scores).max(initial=0.0)):
                gained = True
                orders[child.name] = orders[child.name][order]
                _reorder_columns(child, blocks, order)
        if not gained:
            break
    return sum(float(np.trace(block)) for block in blocks if block is not None), orders


def _score_parts(child: ChildGroup, blocks: Sequence[Gram | None]) -> npt.NDArray[np.float64]:
    """Return the inner product of every part of a child with every part of the other's."""
    scores = np.zeros((child.size, child.size))
    for part in child.axes:
        block = blocks[part.of]
        if block is not None:
            shape = (part.outer, child.size, part.inner)
            scores += np.einsum("oaiobi->ab", block.reshape(*shape, *shape))
    return scores


def _reorder_columns(child: ChildGroup, blocks: list[Gram | None], order: Indices) -> None:
    for part in child.axes:
        block = blocks[part.of]
        if block is not None:
            columns = np.arange(block.shape[1]).reshape(part.outer, child.size, part.inner)
            blocks[part.of] = block[:, columns[:, order].reshape(-1)]


def _multiply(
    target: npt.NDArray[Any], source: npt.NDArray[Any], axis: GroupAxis, group: PermutationGroup
) -> Gram:
    """Return inner products of a group's units, or of their entries where they have children."""
    run = slice(axis.start, axis.start + group.size * axis.inner)
    num_rows = group.size * axis.inner if group.children else group.size
    left, right = (
        np.moveaxis(array, axis.axis, 0)[run].reshape(num_rows, -1) for array in (target, source)
    )
    gram: Gram = left @ right.T
    return gram
