"""Weight matching: the permutation that brings one model closest to another. No I/O.

Coordinate descent over groups, each solved exactly by a linear sum assignment. Source: git
re-basin, https://arxiv.org/abs/2209.04836, algorithm 1. Ours on top of it: units with an inside of
their own (attention heads) are compared at their best inner match, so heads and their dimensions
are found together; and a first start that follows the network from its inputs, each group seeing
only axes that are settled, recovers permuted copies exactly where the paper's start from the given
order gets stuck. The better of the two ends counts. The distance never grows: a step that does not
gain is not taken.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ws_pipeline.weights.dtypes import widen
from ws_pipeline.weights.symmetry.groups import PermutationGroup, Shapes, Symmetry
from ws_pipeline.weights.symmetry.matching import MIN_GAIN, match_group
from ws_pipeline.weights.symmetry.permutation import (
    Permutation,
    State,
    compose_permutations,
    order_group,
    permute_state,
)

MAX_SWEEPS = 50
"""Sweeps over all groups; git re-basin ends after a handful."""


class _Task(NamedTuple):
    """Two models' counted tensors, and the shapes of all."""

    target: State
    source: State
    symmetry: Symmetry
    shapes: Shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """How a model was brought to another.

    Attributes:
        permutation: Of the model that was moved.
        distance_before: L2 distance of the counted tensors before.
        distance_after: And after; never larger.
        num_sweeps: Of the start that won, the last and fruitless one included.
    """

    permutation: Permutation
    distance_before: float
    distance_after: float
    num_sweeps: int


def align_model(
    reference: State,
    model: State,
    symmetry: Symmetry,
    *,
    generator: np.random.Generator,
    names: Collection[str] | None = None,
) -> Alignment:
    """Find the permutation of ``model`` that brings it closest to ``reference``.

    Args:
        reference: Stays as it is.
        model: Its counted tensors have the reference's shapes.
        symmetry: Of the model.
        generator: Order of the groups within a sweep.
        names: Tensors whose distance counts; without it all of floating point but running
            statistics, which are no weights and may outweigh them all. The others follow.

    Raises:
        ValueError: If a counted tensor has not the same shape in both.
    """
    shapes = {name: array.shape for name, array in model.items()}
    counted = _list_counted(model) if names is None else set(names)
    for name in sorted(counted):
        if name not in reference or reference[name].shape != shapes.get(name):
            raise ValueError(f"{name} must have the same shape in both models to be compared.")
    target = {name: widen(reference[name]) for name in counted}
    source = {name: widen(model[name]) for name in counted}
    before = _square_distance(target, source)
    ends: list[tuple[float, Permutation, int]] = [(before, {}, 0)]
    if any(not np.array_equal(target[name], source[name]) for name in symmetry.tensors & counted):
        task = _Task(target, source, symmetry, shapes)
        for start in (_follow_inputs(task), {}):
            ends.append(_descend(task, start, generator))
            if ends[-1][0] == 0.0:
                break
    after, permutation, num_sweeps = min(ends, key=lambda end: end[0])
    return Alignment(
        permutation=permutation,
        distance_before=before**0.5,
        distance_after=after**0.5,
        num_sweeps=num_sweeps,
    )


def _list_counted(model: State) -> set[str]:
    return {
        name
        for name, array in model.items()
        if not name.endswith(("running_mean", "running_var"))
        and (array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float8")))
    }


def _square_distance(target: State, source: State) -> float:
    total = 0.0
    for name in sorted(target):
        difference = (target[name] - source[name]).reshape(-1)
        total += float(np.dot(difference, difference))
    return total


def _descend(
    task: _Task, start: Permutation, generator: np.random.Generator
) -> tuple[float, Permutation, int]:
    """Match group after group until a whole sweep gains nothing; end, permutation, sweeps."""
    target, source, symmetry, shapes = task
    total = start
    moved = permute_state(source, _restrict(start, source))
    num_sweeps = 0
    for num_sweeps in range(1, MAX_SWEEPS + 1):  # noqa: B007 - counted beyond the loop
        gained = False
        for number in generator.permutation(len(symmetry.groups)):
            group = symmetry.groups[number]
            kept = [axis.tensor in source for axis in group.axes]
            orders = match_group(target, moved, group, kept)
            if orders is None:
                continue
            step = order_group(group, orders, shapes)
            candidate = permute_state(moved, _restrict(step, source))
            # With two axes of one tensor in the group the assignment is only a linear guess.
            if _is_coupled(group) and not _is_closer(target, candidate, moved, group):
                continue
            moved, total, gained = candidate, compose_permutations(total, step), True
        if not gained:
            break
    return _square_distance(target, moved), total, num_sweeps


def _follow_inputs(task: _Task) -> Permutation:
    """Match the groups one by one, each by the axes whose tensors no unmatched group touches.

    The next group is always the one with the largest share of such axes, so that the matching
    walks from the inputs (and outputs), whose order is fixed, inwards.
    """
    target, source, symmetry, shapes = task
    total: Permutation = {}
    moved: Mapping[str, npt.NDArray[Any]] = source
    left = list(symmetry.groups)
    while left:
        touched = [
            {axis.tensor for other in left if other is not group for axis in other.axes}
            for group in left
        ]
        settled = [
            [axis.tensor in source and axis.tensor not in others for axis in group.axes]
            for group, others in zip(left, touched, strict=True)
        ]
        strength = [
            sum(np.prod(shapes[a.tensor]) for a, k in zip(g.axes, kept, strict=True) if k) / g.size
            for g, kept in zip(left, settled, strict=True)
        ]
        chosen = int(np.argmax(strength))
        group, kept = left.pop(chosen), settled[chosen]
        if not any(kept):
            kept = [axis.tensor in source for axis in group.axes]
        orders = match_group(target, moved, group, kept)
        if orders is not None:
            step = order_group(group, orders, shapes)
            moved = permute_state(moved, _restrict(step, source))
            total = compose_permutations(total, step)
    return total


def _restrict(permutation: Permutation, state: State) -> Permutation:
    return {key: index for key, index in permutation.items() if key[0] in state}


def _is_coupled(group: PermutationGroup) -> bool:
    axes = {(axis.tensor, axis.axis) for axis in group.axes}
    return len({tensor for tensor, _ in axes}) < len(axes)


def _is_closer(target: State, candidate: State, moved: State, group: PermutationGroup) -> bool:
    names = {axis.tensor for axis in group.axes} & candidate.keys()
    near, far = (
        _square_distance({n: target[n] for n in names}, {n: state[n] for n in names})
        for state in (candidate, moved)
    )
    return near < far * (1.0 - MIN_GAIN)
