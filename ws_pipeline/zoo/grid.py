"""From a population's grid to the plan of every single model. No torch, no I/O.

A model's id is the digest of everything that decides its weights, so the same model in two zoos has
one name, and a changed grid retrains only what changed.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from ws_pipeline.errors import ConfigError
from ws_pipeline.zoo.config import (
    ADDED_LATER,
    ARCHITECTURE_SIZES,
    BOUNDS,
    CHOICES,
    FORMAT_VERSION,
    HEAD_SIZES,
    MAX_MODELS,
    TRAINING_FACTORS,
    FactorGrid,
    GridConfig,
    Scalar,
    Size,
    ZooConfig,
    digest_of,
)

NUM_NAME_CHARACTERS = 8
"""Hex characters of the id in a repo's name. 1,000 models clash with odds of 1e-4: refused then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPlan:
    """One model to be trained, before anything is trained.

    Args:
        model_id: Sha256 of all that decides the weights.
        name: Repo name of the final model, without the owner.
        sizes: All sizes of the architecture.
        factors: All training factors.
        varied: Names of what the population's grid varies, sizes and factors alike.
    """

    model_id: str
    name: str
    population: str
    architecture: str
    dataset: str
    sizes: Mapping[str, Size]
    factors: Mapping[str, Scalar]
    varied: tuple[str, ...]
    seed: int
    num_epochs: int
    batch_size: int
    rows_per_epoch: int
    eval_rows: int
    keep_epochs: tuple[int, ...]
    parent: "ModelPlan | None"
    new_head: bool

    @property
    def root(self) -> "ModelPlan":
        """The pre-trained model at the start of this model's lineage."""
        return self if self.parent is None else self.parent.root


def expand_factors(grid: FactorGrid) -> list[dict[str, Size]]:
    """List the combinations of a factor grid, in a fixed order."""
    if grid.kind == "listed":
        return [dict(row) for row in grid.rows]
    names = list(grid.values)
    combinations = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(grid.values[name] for name in names))
    ]
    if grid.kind == "product":
        return combinations
    if grid.num_samples > len(combinations):
        raise ConfigError(
            f"num_samples must be at most the {len(combinations)} combinations there are, got "
            f"{grid.num_samples}."
        )
    return random.Random(grid.seed).sample(combinations, grid.num_samples)  # noqa: S311


def plan_zoo(config: ZooConfig) -> dict[str, list[ModelPlan]]:
    """Plan every model of a zoo.

    Returns:
        The plans of each population, in the order of the config.

    Raises:
        ConfigError: When a factor or size does not exist, or two models would be the same one.
    """
    plans: dict[str, list[ModelPlan]] = {}
    seen: dict[str, str] = {}
    for grid in config.populations:
        parents = plans[grid.parent.population] if grid.parent is not None else None
        plans[grid.name] = plan_population(grid, parents)
        for plan in plans[grid.name]:
            other = seen.setdefault(plan.model_id, grid.name)
            if other != grid.name:
                raise ConfigError(f"Populations {other!r} and {grid.name!r} hold the same model.")
    every = [plan for population in plans.values() for plan in population]
    if len(every) > MAX_MODELS:
        raise ConfigError(f"A zoo must have at most {MAX_MODELS} models, got {len(every)}.")
    if len({plan.name for plan in every}) != len(every):
        raise ConfigError("Two models of the zoo share a name; change a seed.")
    return plans


def plan_population(grid: GridConfig, parents: Sequence[ModelPlan] | None) -> list[ModelPlan]:
    """Plan the models of one population, children grouped by parent."""
    rows = [
        (*_split_row(grid, row), tuple(sorted(row)), seed)
        for row in expand_factors(grid.factors)
        for seed in grid.seeds
    ]
    if parents is None:
        starts: list[tuple[ModelPlan | None, list[Any]]] = [(None, rows)]
    else:
        starts = [*zip(_choose_parents(grid, parents), _deal_rows(grid, rows), strict=False)]
    plans = [
        _plan_model(grid, sizes=sizes, factors=factors, varied=varied, seed=seed, parent=parent)
        for parent, chosen in starts
        for sizes, factors, varied, seed in chosen
    ]
    kept = [
        plan if index % grid.keep_every == 0 else _without_checkpoints(plan)
        for index, plan in enumerate(plans)
    ]
    if len({plan.model_id for plan in kept}) != len(kept):
        raise ConfigError(f"The grid of {grid.name!r} holds the same model twice.")
    return kept


def _choose_parents(grid: GridConfig, parents: Sequence[ModelPlan]) -> list[ModelPlan]:
    count = grid.parent.num_parents if grid.parent is not None else 0
    if count > len(parents):
        raise ConfigError(
            f"num_parents of {grid.name!r} must be at most {len(parents)}, got {count}."
        )
    count = count or len(parents)
    return [parents[index * len(parents) // count] for index in range(count)]


def _deal_rows(grid: GridConfig, rows: list[Any]) -> "itertools.cycle[list[Any]]":
    """Hand each parent its rows: all of them, or so many in turn."""
    per_parent = grid.parent.per_parent if grid.parent is not None else 0
    if not per_parent:
        return itertools.cycle([rows])
    hands = [
        [rows[(start + offset) % len(rows)] for offset in range(min(per_parent, len(rows)))]
        for start in range(0, per_parent * len(rows), per_parent)
    ]
    return itertools.cycle(hands)


def _split_row(
    grid: GridConfig, row: Mapping[str, Size]
) -> tuple[dict[str, Size], dict[str, Scalar]]:
    """Complete a grid row with the defaults and tell sizes from training factors."""
    sizes = dict(ARCHITECTURE_SIZES[grid.architecture])
    factors = dict(TRAINING_FACTORS)
    for name, value in {**grid.sizes, **row}.items():
        if name in sizes:
            sizes[name] = value
        elif name in factors and name not in grid.sizes and not isinstance(value, tuple):
            factors[name] = value
        else:
            close = get_close_matches(name, [*sizes, *factors], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{name!r} is no factor or size of a {grid.architecture!r} population{hint}."
            )
        _check_value(name, value)
    return sizes, factors


def _check_value(name: str, value: Size) -> None:
    """Hold a factor against its bounds or choices."""
    allowed = CHOICES.get(name)
    if allowed is not None and value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    bounds = BOUNDS.get(name)
    if bounds is not None and not (
        isinstance(value, int | float) and bounds[0] <= value <= bounds[1]
    ):
        raise ConfigError(f"{name} must lie in [{bounds[0]}, {bounds[1]}], got {value!r}.")


def _plan_model(
    grid: GridConfig,
    *,
    sizes: dict[str, Size],
    factors: dict[str, Scalar],
    varied: tuple[str, ...],
    seed: int,
    parent: ModelPlan | None,
) -> ModelPlan:
    new_head = grid.parent is not None and grid.parent.new_head
    if parent is not None:
        own = (set(grid.sizes) | set(varied)) & set(sizes)
        if own - (HEAD_SIZES if new_head else set()):
            raise ConfigError(f"{grid.name!r} has its parents' sizes and must not set its own.")
        sizes = {**parent.sizes, **{name: sizes[name] for name in own}}
    model_id = digest_of(
        {
            "format": FORMAT_VERSION,
            "architecture": grid.architecture,
            "dataset": grid.dataset,
            "sizes": _of_id(sizes, ARCHITECTURE_SIZES[grid.architecture]),
            "factors": _of_id(factors, TRAINING_FACTORS),
            "seed": seed,
            "num_epochs": grid.num_epochs,
            "batch_size": grid.batch_size,
            "parent": None if parent is None else parent.model_id,
            "new_head": new_head,
            # Absent at its default: it came after the first zoos, whose names should stand.
            **({"rows_per_epoch": grid.rows_per_epoch} if grid.rows_per_epoch else {}),
        }
    )
    return ModelPlan(
        model_id=model_id,
        name=f"{grid.architecture}-{grid.dataset}-{model_id[:NUM_NAME_CHARACTERS]}",
        population=grid.name,
        architecture=grid.architecture,
        dataset=grid.dataset,
        sizes=sizes,
        factors=factors,
        varied=varied,
        seed=seed,
        num_epochs=grid.num_epochs,
        batch_size=grid.batch_size,
        rows_per_epoch=grid.rows_per_epoch,
        eval_rows=grid.eval_rows,
        keep_epochs=grid.keep_epochs,
        parent=parent,
        new_head=new_head,
    )


def _of_id(values: Mapping[str, Size], defaults: Mapping[str, Size]) -> dict[str, Size]:
    """Leave out what came later and stands at its default."""
    return {
        name: value
        for name, value in values.items()
        if name not in ADDED_LATER or value != defaults[name]
    }


def _without_checkpoints(plan: ModelPlan) -> ModelPlan:
    return replace(plan, keep_epochs=())
