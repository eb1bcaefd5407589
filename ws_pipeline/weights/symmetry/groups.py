"""What shares one permutation: groups of tensor axes. No I/O, no values.

A group has ``size`` interchangeable units. Along each of its axes a unit is a block of ``inner``
consecutive entries: one row, the spatial positions of a flattened channel, the dimensions of an
attention head. Units that have an inside of their own (the dimensions of a head) have it as
children, which act within every unit by itself. Not here: how groups are found (``finding``) and
what is done with them (``permutation``, ``alignment``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of every tensor of a model by name."""


class Segment(NamedTuple):
    """A run of one axis as ``(outer, size, inner)``, of which the middle is permuted."""

    tensor: str
    axis: int
    start: int
    outer: int
    size: int
    inner: int

    @property
    def stop(self) -> int:
        """One past the last entry."""
        return self.start + self.outer * self.size * self.inner


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupAxis:
    """One axis of one tensor along which a group's units lie.

    Attributes:
        start: First entry of the first unit; fused projections hold several runs.
        inner: Consecutive entries of one unit.
    """

    tensor: str
    axis: int
    start: int = 0
    inner: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildAxis:
    """How a child lies within one unit along one of the parent's axes.

    Attributes:
        of: Index into the parent's axes. There, the unit's ``inner`` entries are
            ``(outer, size, inner)`` and the child permutes the middle.
    """

    of: int
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildGroup:
    """Interchangeable parts within each unit of a group, permuted in every unit by themselves."""

    name: str
    size: int
    axes: tuple[ChildAxis, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PermutationGroup:
    """Axes that share one permutation.

    Attributes:
        name: Unique within a model, such as ``encoder.layer.0.heads``.
        size: Interchangeable units.
        axes: Where they lie; no two overlap.
        children: What is interchangeable within a unit.
    """

    name: str
    size: int
    axes: tuple[GroupAxis, ...]
    children: tuple[ChildGroup, ...] = ()

    def segments(self) -> Iterator[Segment]:
        """Yield where the units lie."""
        for axis in self.axes:
            yield Segment(axis.tensor, axis.axis, axis.start, 1, self.size, axis.inner)

    def child_segments(self, child: ChildGroup, unit: int) -> Iterator[Segment]:
        """Yield where the parts of ``child`` lie within one unit."""
        for part in child.axes:
            axis = self.axes[part.of]
            start = axis.start + unit * axis.inner
            yield Segment(axis.tensor, axis.axis, start, part.outer, child.size, part.inner)


@dataclass(frozen=True, kw_only=True, slots=True)
class Symmetry:
    """All groups that are known of a model. Every combination of their permutations is exact.

    Attributes:
        groups: In the order of the network where it is known.
        gaps: One sentence for each part of the model that has no group though it may have one.
    """

    groups: tuple[PermutationGroup, ...] = ()
    gaps: tuple[str, ...] = field(default=())

    @property
    def tensors(self) -> frozenset[str]:
        """Names of all tensors that a group touches."""
        return frozenset(axis.tensor for group in self.groups for axis in group.axes)


def describe_misfit(group: PermutationGroup, shapes: Shapes) -> str:
    """Say why a group cannot be one of a model with these shapes; "" if it can."""
    seen: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for segment in group.segments():
        shape = shapes.get(segment.tensor)
        if shape is None or segment.axis >= len(shape):
            return f"{group.name}: {segment.tensor} has no axis {segment.axis}"
        if segment.inner < 1 or segment.stop > shape[segment.axis]:
            return (
                f"{group.name}: axis {segment.axis} of {segment.tensor} is {shape[segment.axis]} "
                f"long, {group.size} units of {segment.inner} from {segment.start} do not fit"
            )
        runs = seen.setdefault((segment.tensor, segment.axis), [])
        if any(segment.start < stop and start < segment.stop for start, stop in runs):
            return f"{group.name}: runs of {segment.tensor} overlap"
        runs.append((segment.start, segment.stop))
    for child in group.children:
        for part in child.axes:
            if part.outer * child.size * part.inner != group.axes[part.of].inner:
                return f"{group.name}: {child.name} does not fill a unit"
    return ""
