"""The stacks of a zoo: which models train together, in which order, on which worker. No I/O."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import polars as pl

from ws_pipeline.zoo.config import GridConfig, digest_of
from ws_pipeline.zoo.grid import ModelPlan

MAX_STACK_MODELS = 64
"""Most models of one stack. More gain nothing: from 16 on the time per model is flat on a CPU."""

Plans = Sequence[ModelPlan]


def divide_plans(plans: Plans) -> list[list[ModelPlan]]:
    """Group plans whose models can train in one stack: all that share sizes and objective.

    What is too much for one stack goes into several of about equal size.
    """
    shapes: dict[str, list[ModelPlan]] = {}
    for plan in plans:
        key = digest_of({**plan.sizes, "objective": plan.factors["objective"]})
        shapes.setdefault(key, []).append(plan)
    return [
        members[len(members) * part // count : len(members) * (part + 1) // count]
        for members in shapes.values()
        for count in [-(-len(members) // MAX_STACK_MODELS)]
        for part in range(count)
    ]


def divide_stacks(
    grids: Sequence[GridConfig], stacks: Mapping[str, Sequence[Plans]], *, index: int, count: int
) -> list[list[tuple[GridConfig, Plans]]]:
    """Deal stacks to so many processes; what one of them gets, generation by generation.

    Parents come a generation before their children, so that a process which waits for the others
    between two generations finds every parent trained.

    Args:
        grids: The populations, parents before children.
        stacks: Of each population, by name.
        index: Which process.
        count: How many there are.
    """
    depths: dict[str, int] = {}
    generations: list[list[tuple[GridConfig, Plans]]] = []
    for grid in grids:
        depth = 0 if grid.parent is None else depths[grid.parent.population] + 1
        depths[grid.name] = depth
        if depth == len(generations):
            generations.append([])
        generations[depth] += [(grid, plans) for plans in stacks[grid.name]]
    return [generation[index::count] for generation in generations]


def run_stacks(
    grids: Sequence[GridConfig],
    stacks: Mapping[str, Sequence[Plans]],
    train: Callable[[GridConfig, Plans], pl.DataFrame],
    *,
    num_workers: int,
    stop: threading.Event,
) -> dict[str, pl.DataFrame]:
    """Train stacks side by side, those of a population after its parent population.

    When one fails, or the user interrupts, ``stop`` tells the others to stop.

    Returns:
        The rows of each population, in the order of its stacks.
    """
    tables: dict[str, pl.DataFrame] = {}
    parts: dict[str, dict[int, pl.DataFrame]] = {grid.name: {} for grid in grids}
    waiting = list(grids)
    running: dict[Future[pl.DataFrame], tuple[str, int]] = {}
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            while waiting or running:
                ready = [g for g in waiting if g.parent is None or g.parent.population in tables]
                for grid in ready:
                    waiting.remove(grid)
                    for number, plans in enumerate(stacks[grid.name]):
                        running[pool.submit(train, grid, plans)] = (grid.name, number)
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    name, number = running.pop(done)
                    parts[name][number] = done.result()
                    if len(parts[name]) == len(stacks[name]):
                        tables[name] = pl.concat(part for _, part in sorted(parts[name].items()))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tables
