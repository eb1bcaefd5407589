"""A random permutation of a model that is worked out only where it is looked at. No I/O.

A window touches a few tensors of its model, so the orders of the groups that touch those are drawn,
and their index arrays are built, when a tensor is read. Each group has a stream of its own, so what
is drawn does not depend on what was looked at before.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ws_pipeline.weights.symmetry.groups import ChildGroup, PermutationGroup, Shapes, Symmetry
from ws_pipeline.weights.symmetry.permutation import (
    Indices,
    Orders,
    Permutation,
    compose_permutations,
    order_group,
)

GroupParts = Mapping[tuple[str, int], Sequence[tuple[int, PermutationGroup]]]
"""Of each (tensor, axis) the groups that touch it, by their numbers, cut down to that axis."""


def split_groups(symmetry: Symmetry) -> GroupParts:
    """Cut the groups of a model down to what each does to one axis of one tensor."""
    parts: dict[tuple[str, int], list[tuple[int, PermutationGroup]]] = {}
    for number, group in enumerate(symmetry.groups):
        for key in dict.fromkeys((axis.tensor, axis.axis) for axis in group.axes):
            parts.setdefault(key, []).append((number, restrict_group(group, *key)))
    return parts


def restrict_group(group: PermutationGroup, tensor: str, axis: int) -> PermutationGroup:
    """Return a group with only those of its axes that lie along one axis of one tensor."""
    kept = [
        place for place, each in enumerate(group.axes) if (each.tensor, each.axis) == (tensor, axis)
    ]
    places = {old: new for new, old in enumerate(kept)}
    return replace(
        group,
        axes=tuple(group.axes[place] for place in kept),
        children=tuple(_restrict_child(child, places) for child in group.children),
    )


class DrawnPermutation(Permutation):
    """A permutation of all groups of a model, uniform and a function of a key.

    Args:
        symmetry: The groups.
        parts: The same, axis by axis.
        shapes: Of the model's tensors.
        key: Decides the draw.
    """

    def __init__(
        self, symmetry: Symmetry, parts: GroupParts, shapes: Shapes, key: Sequence[int]
    ) -> None:
        self._groups = symmetry.groups
        self._parts = parts
        self._shapes = shapes
        self._key = tuple(key)
        self._orders: dict[int, Orders] = {}

    def __getitem__(self, key: tuple[str, int]) -> Indices:
        """Return where every entry of an axis comes from."""
        permutation: Permutation = {}
        for number, group in self._parts[key]:
            drawn = order_group(group, self._order(number), self._shapes)
            permutation = compose_permutations(permutation, drawn)
        return permutation[key]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Iterate over the axes that are touched."""
        return iter(self._parts)

    def __len__(self) -> int:
        """Count the axes that are touched."""
        return len(self._parts)

    def __contains__(self, key: object) -> bool:
        """Say whether an axis is touched; nothing is drawn for it."""
        return key in self._parts

    def _order(self, number: int) -> Orders:
        """Return the order of a group's units and of what is within them."""
        if number not in self._orders:
            group = self._groups[number]
            generator = np.random.default_rng((*self._key, number))
            orders: dict[str, Indices] = {}
            for child in group.children:
                parts = np.tile(np.arange(child.size), (group.size, 1))
                orders[f"{group.name}/{child.name}"] = generator.permuted(parts, axis=1)
            orders[group.name] = generator.permutation(group.size)
            self._orders[number] = orders
        return self._orders[number]


def _restrict_child(child: ChildGroup, places: Mapping[int, int]) -> ChildGroup:
    axes = tuple(replace(axis, of=places[axis.of]) for axis in child.axes if axis.of in places)
    return replace(child, axes=axes)
