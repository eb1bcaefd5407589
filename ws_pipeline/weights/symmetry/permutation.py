"""Drawing, applying, composing and inverting permutations of a model's hidden units. No I/O.

A permutation is one index array per touched axis: ``new[i] = old[index[i]]``. Values are moved,
never computed with, so an inverse restores every bit in every dtype. Randomness is an argument.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.symmetry.groups import PermutationGroup, Segment, Shapes, Symmetry

Indices = npt.NDArray[np.intp]
State = Mapping[str, npt.NDArray[Any]]
"""A model's tensors by name."""

Permutation = Mapping[tuple[str, int], Indices]
"""Of each touched (tensor, axis) where every entry comes from; axes that are absent stay."""

Orders = Mapping[str, Indices]
"""Order of a group's units ``(size,)`` by its name; of a child's parts ``(units, size)`` by
``<group>/<child>``. Children act first, in the old order of the units."""


def draw_permutation(
    symmetry: Symmetry, shapes: Shapes, *, generator: np.random.Generator
) -> Permutation:
    """Draw uniformly from all permutations of a model.

    Args:
        symmetry: What may be permuted.
        shapes: Of the model's tensors.
        generator: Where the draws come from, group after group.
    """
    permutation: Permutation = {}
    for group in symmetry.groups:
        orders: dict[str, Indices] = {}
        for child in group.children:
            parts = np.tile(np.arange(child.size), (group.size, 1))
            orders[f"{group.name}/{child.name}"] = generator.permuted(parts, axis=1)
        orders[group.name] = generator.permutation(group.size)
        drawn = order_group(group, orders, shapes)
        permutation = compose_permutations(permutation, drawn)
    return permutation


def order_group(group: PermutationGroup, orders: Orders, shapes: Shapes) -> Permutation:
    """Turn the orders of one group and its children into a permutation of the model."""
    indices: dict[tuple[str, int], Indices] = {}
    for child in group.children:
        for unit, order in enumerate(orders[f"{group.name}/{child.name}"]):
            _reorder(indices, group.child_segments(child, unit), order, shapes)
    _reorder(indices, group.segments(), orders[group.name], shapes)
    return indices


def permute_state(state: State, permutation: Permutation) -> dict[str, npt.NDArray[Any]]:
    """Return the model with its units reordered; tensors that nothing touches are shared.

    Raises:
        KeyError: If the permutation names a tensor that the model does not have.
    """
    permuted = dict(state)
    for (name, axis), index in permutation.items():
        permuted[name] = np.take(permuted[name], index, axis=axis)
    return permuted


def invert_permutation(permutation: Permutation) -> Permutation:
    """Return what undoes a permutation, to the bit."""
    return {key: np.argsort(index) for key, index in permutation.items()}


def compose_permutations(first: Permutation, second: Permutation) -> Permutation:
    """Return the permutation that does ``first``, then ``second``."""
    composed = dict(first)
    for key, index in second.items():
        composed[key] = first[key][index] if key in first else index
    return composed


def _reorder(
    indices: dict[tuple[str, int], Indices],
    segments: Iterable[Segment],
    order: Indices,
    shapes: Shapes,
) -> None:
    """Permute the middle of every segment, on top of what the index arrays hold already."""
    for segment in segments:
        key = (segment.tensor, segment.axis)
        if key not in indices:
            indices[key] = np.arange(shapes[segment.tensor][segment.axis])
        run = indices[key][segment.start : segment.stop]
        units = run.reshape(segment.outer, segment.size, segment.inner)
        run[:] = units[:, order].reshape(-1)
