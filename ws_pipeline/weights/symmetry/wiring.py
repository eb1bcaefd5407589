"""Building groups from a network's wiring, axis by axis. No I/O.

:class:`Wiring` is handed the axes that a family's rules name and drops every group that turns out
not to be one, with the reason: a permutation that is not offered costs nothing, a wrong one would
change the network.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ws_pipeline.weights.symmetry.groups import (
    ChildGroup,
    GroupAxis,
    PermutationGroup,
    Shapes,
    Symmetry,
    describe_misfit,
)

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
"""Of a normalisation layer, those with one entry per channel."""
COUNTER = "num_batches_tracked"


class Wiring:
    """Groups in the making.

    Args:
        shapes: Of the model's tensors.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self._axes: dict[str, list[GroupAxis]] = {}
        self._sizes: dict[str, int] = {}
        self._children: dict[str, tuple[ChildGroup, ...]] = {}
        self._dropped: set[str] = set()
        self._gaps: list[str] = []

    def open_group(self, name: str, size: int, *, children: tuple[ChildGroup, ...] = ()) -> None:
        """Begin a group, or say its size again; two sizes for one group drop it."""
        if self._sizes.setdefault(name, size) != size:
            self.drop_group(name, f"{name}: {self._sizes[name]} units meet {size}")
        self._children.setdefault(name, children)

    def add_blocks(self, group: str, tensor: str, axis: int) -> None:
        """Let a whole axis take part in a group, in equal blocks of one or more entries."""
        length, size = self.shapes[tensor][axis], self._sizes[group]
        if length < size or length % size:
            self.drop_group(group, f"{group}: {tensor} has {length} entries for {size} units")
            return
        self.add_run(group, tensor, axis, inner=length // size)

    def add_run(
        self, group: str, tensor: str, axis: int, *, start: int = 0, inner: int = 1
    ) -> None:
        """Let a run of an axis take part in a group; what is there already stays."""
        added = GroupAxis(tensor=tensor, axis=axis, start=start, inner=inner)
        axes = self._axes.setdefault(group, [])
        if added not in axes:
            axes.append(added)

    def add_units(self, group: str, tensor: str, axis: int) -> None:
        """Let an axis with exactly one entry per unit take part in a group."""
        length = self.shapes[tensor][axis]
        if length != self._sizes[group]:
            reason = f"{group}: {tensor} has {length} entries for {self._sizes[group]} units"
            self.drop_group(group, reason)
            return
        self.add_run(group, tensor, axis)

    def add_norm(self, group: str, module: str) -> None:
        """Let a normalisation layer's tensors take part in a group."""
        for leaf in NORM_TENSORS:
            if f"{module}.{leaf}" in self.shapes:
                self.add_units(group, f"{module}.{leaf}", 0)

    def add_output(self, group: str, module: str, *, axis: int = 0) -> None:
        """Let a layer's outputs, bias included, take part in a group."""
        self.add_units(group, f"{module}.weight", axis)
        if f"{module}.bias" in self.shapes:
            self.add_units(group, f"{module}.bias", 0)

    def drop_group(self, name: str, reason: str) -> None:
        """Take a group out for good."""
        if name not in self._dropped:
            self._gaps.append(reason)
        self._dropped.add(name)

    def add_gap(self, reason: str) -> None:
        """Note a part of the model that gets no group."""
        self._gaps.append(reason)

    def build(self) -> Symmetry:
        """Return the groups that hold."""
        groups = []
        for name, axes in self._axes.items():
            group = PermutationGroup(
                name=name,
                size=self._sizes[name],
                axes=tuple(axes),
                children=self._children[name],
            )
            misfit = describe_misfit(group, self.shapes)
            if misfit:
                self.drop_group(name, misfit)
            if name not in self._dropped and (group.size > 1 or group.children):
                groups.append(group)
        return Symmetry(groups=tuple(groups), gaps=tuple(self._gaps))


def list_unknown(names: Collection[str], known: Collection[str]) -> list[str]:
    """Return the tensors that a wiring does not know, counters left out."""
    return sorted(name for name in names if name not in known and not name.endswith(COUNTER))


def read_count(config: Mapping[str, Any], *keys: str) -> int:
    """Return the first of the config's entries that is a positive count; 0 for none."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0
