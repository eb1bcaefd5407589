"""Permutations compose, invert to the bit, and are drawn from their generator alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.weights.symmetry.groups import (
    ChildAxis,
    ChildGroup,
    GroupAxis,
    PermutationGroup,
    Symmetry,
    describe_misfit,
)
from ws_pipeline.weights.symmetry.permutation import (
    compose_permutations,
    draw_permutation,
    invert_permutation,
    order_group,
    permute_state,
)

SHAPES = {"q": (12, 5), "o": (5, 12), "free": (3,)}
HEADS = PermutationGroup(
    name="heads",
    size=3,
    axes=(GroupAxis(tensor="q", axis=0, inner=4), GroupAxis(tensor="o", axis=1, inner=4)),
    children=(
        ChildGroup(name="pairs", size=2, axes=(ChildAxis(of=0, outer=2), ChildAxis(of=1, inner=2))),
    ),
)
SYMMETRY = Symmetry(groups=(HEADS,))


def draw_state(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape) for name, shape in SHAPES.items()}


def test_children_act_within_their_unit_before_it_moves() -> None:
    orders = {"heads": np.array([2, 0, 1]), "heads/pairs": np.array([[1, 0], [0, 1], [0, 1]])}
    permutation = order_group(HEADS, orders, SHAPES)
    assert permutation["q", 0].tolist() == [8, 9, 10, 11, 1, 0, 3, 2, 4, 5, 6, 7]
    assert permutation["o", 1].tolist() == [8, 9, 10, 11, 2, 3, 0, 1, 4, 5, 6, 7]


@given(st.integers(0, 2**32 - 1))
def test_an_inverse_restores_every_bit_and_composition_is_one_after_the_other(seed: int) -> None:
    state, generator = draw_state(seed), np.random.default_rng(seed)
    one, other = (draw_permutation(SYMMETRY, SHAPES, generator=generator) for _ in range(2))
    there = permute_state(permute_state(state, one), other)
    assert_equal(there, permute_state(state, compose_permutations(one, other)))
    assert_equal(permute_state(permute_state(state, one), invert_permutation(one)), state)
    assert there["free"] is state["free"]


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert all(np.array_equal(left[name], right[name]) for name in SHAPES)


def test_a_draw_depends_on_its_generator_alone() -> None:
    draws = [
        draw_permutation(SYMMETRY, SHAPES, generator=np.random.default_rng(seed))["q", 0].tolist()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_every_order_is_drawn() -> None:
    generator = np.random.default_rng(0)
    group = PermutationGroup(name="g", size=3, axes=(GroupAxis(tensor="free", axis=0),))
    symmetry = Symmetry(groups=(group,))
    seen = {
        tuple(draw_permutation(symmetry, SHAPES, generator=generator)["free", 0].tolist())
        for _ in range(100)
    }
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        ((GroupAxis(tensor="missing", axis=0),), "missing has no axis 0"),
        ((GroupAxis(tensor="q", axis=2),), "q has no axis 2"),
        ((GroupAxis(tensor="q", axis=0, inner=5),), "3 units of 5 from 0 do not fit"),
        ((GroupAxis(tensor="q", axis=0), GroupAxis(tensor="q", axis=0, start=2)), "overlap"),
    ],
)
def test_a_group_that_does_not_fit_says_why(axes: tuple[GroupAxis, ...], why: str) -> None:
    group = PermutationGroup(name="g", size=3, axes=axes)
    assert why in describe_misfit(group, SHAPES)
    assert describe_misfit(HEADS, SHAPES) == ""
