"""Stacks are even and of one kind; populations wait for their parents."""

import threading
from dataclasses import replace

import polars as pl

from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.config import GridConfig, ParentConfig
from ws_pipeline.zoo.grid import ModelPlan, plan_zoo
from ws_pipeline.zoo.workers import (
    MAX_STACK_MODELS,
    Plans,
    divide_plans,
    divide_stacks,
    run_stacks,
)


def test_stacks_hold_every_plan_once_and_are_about_equal() -> None:
    for population in plan_zoo(zoo_config("vit-digits")).values():
        stacks = divide_plans(population)
        assert sorted(p.model_id for s in stacks for p in s) == sorted(
            p.model_id for p in population
        )
        sizes = [len(stack) for stack in stacks]
        assert max(sizes) <= MAX_STACK_MODELS
        assert max(sizes) - min(sizes) <= 1
        assert all(len({str(plan.sizes["head"]) for plan in stack}) == 1 for stack in stacks)


def test_models_of_different_objectives_are_in_different_stacks() -> None:
    (plan, *_) = plan_zoo(zoo_config("vit-digits"))["vit-digits-supervised"]
    other = replace(plan, factors={**plan.factors, "objective": "contrastive"})
    assert divide_plans([plan, other, plan]) == [[plan, plan], [other]]


def test_processes_share_every_stack_once_and_parents_come_a_generation_before_children() -> None:
    config = zoo_config("vit-digits")
    plans = plan_zoo(config)
    stacks = {name: divide_plans(population) for name, population in plans.items()}
    shares = [divide_stacks(config.populations, stacks, index=i, count=3) for i in range(3)]
    assert {len(share) for share in shares} == {2}  # so that all of them wait equally often
    for generation, is_child in enumerate((False, True)):
        dealt = [stack for share in shares for grid, stack in share[generation]]
        expected = [
            stack
            for grid in config.populations
            if (grid.parent is not None) is is_child
            for stack in stacks[grid.name]
        ]
        names = [stack[0].model_id for stack in dealt]
        assert sorted(names) == sorted(stack[0].model_id for stack in expected)
        assert max(len(s[generation]) for s in shares) - min(len(s[generation]) for s in shares) < 2


def test_a_population_starts_when_all_stacks_of_its_parents_are_done() -> None:
    grids = [
        GridConfig(name="child", architecture="mlp", dataset="digits"),
        GridConfig(name="base", architecture="mlp", dataset="digits"),
    ]
    grids[0] = replace(grids[0], parent=ParentConfig(population="base"))
    plans: list[list[ModelPlan]] = [[], [], []]
    log: list[str] = []

    def train(grid: GridConfig, _: Plans) -> pl.DataFrame:
        log.append(grid.name)
        return pl.DataFrame({"name": [grid.name]})

    stacks = {"base": plans, "child": plans[:1]}
    tables = run_stacks(grids, stacks, train, num_workers=2, stop=threading.Event())
    assert log == ["base", "base", "base", "child"]
    assert tables["base"].height == 3
