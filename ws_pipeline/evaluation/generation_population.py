"""The models that generation starts from, as models of the target's shape. Reads a zoo's repos."""

import json
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.generation_config import (
    STEPS_PER_LOOK,
    GenerationCase,
    GenerationConfig,
)
from ws_pipeline.generation.resizing import resize_weights
from ws_pipeline.generation.template import Template, Weights
from ws_pipeline.zoo.architectures import build_module, describe_module, published_names
from ws_pipeline.zoo.config import ARCHITECTURE_SIZES, GridConfig, Size
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.grid import ModelPlan, plan_population
from ws_pipeline.zoo.index import REPOS_FOLDER, read_index
from ws_pipeline.zoo.repos import write_repo


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """A zoo's finished models of one shape, best first, as models of the target's shape.

    Attributes:
        names: Of their repos.
        weights: Resized where the target has other sizes.
        template: The target's.
        plan: Of a model of the target's shape on the target's data set.
    """

    names: tuple[str, ...]
    weights: tuple[Weights, ...]
    template: Template
    plan: ModelPlan


def read_population(
    zoo: Path,
    case: GenerationCase,
    dataset: Dataset,
    config: GenerationConfig,
    *,
    among: Collection[str] | None = None,
) -> Population:
    """Read the models of a case.

    Args:
        zoo: Its folder.
        case: Which population, and for what.
        dataset: The case's.
        config: Of the study.
        among: Repos that may be taken; None for all.

    Raises:
        MissingInputError: The zoo has not enough models of one shape.
    """
    index = read_index(zoo).filter((pl.col("population") == case.population) & pl.col("is_final"))
    if among is not None:
        index = index.filter(pl.col("name").is_in(among))
    index = index.sort("val_accuracy", "name", descending=[True, False])
    shapes: dict[str, list[str]] = {}
    for name in index["name"]:
        text = (zoo / REPOS_FOLDER / name / "config.json").read_text(encoding="utf-8")
        shapes.setdefault(text, []).append(name)
    names = max(shapes.values(), key=len, default=[])
    if len(names) < config.num_anchors:
        raise MissingInputError(
            f"The zoo must hold {config.num_anchors} models of population {case.population!r} and "
            f"one shape, it holds {len(names)}; train it or ask for fewer anchors."
        )
    opened = [Template.open(zoo / REPOS_FOLDER / name) for name in names]
    weights: list[Weights] = [each for _, each in opened]
    source = opened[0][0]
    plan = _plan_target(index.filter(pl.col("name") == names[0]), case, config)
    target = open_target(plan, dataset) if case.sizes else source
    if case.sizes:
        weights = [resize_weights(source, each, target) for each in weights]
    return Population(names=tuple(names), weights=tuple(weights), template=target, plan=plan)


def _plan_target(row: pl.DataFrame, case: GenerationCase, config: GenerationConfig) -> ModelPlan:
    """Plan a model of the anchors' sizes but for what the case changes."""
    architecture = row["family"][0]
    factors = json.loads(row["factors"][0])
    sizes = {
        name: _parse_size(default, factors[name])
        for name, default in ARCHITECTURE_SIZES[architecture].items()
    }
    grid = GridConfig(
        name=case.name,
        architecture=architecture,
        dataset=case.dataset,
        sizes={**sizes, **case.sizes},
        num_epochs=max(config.steps) // STEPS_PER_LOOK,
        batch_size=config.batch_size,
        rows_per_epoch=STEPS_PER_LOOK * config.batch_size,
        eval_rows=config.eval_rows,
        keep_epochs=tuple(s // STEPS_PER_LOOK for s in config.steps if s < max(config.steps)),
    )
    return plan_population(grid, None)[0]


def _parse_size(default: Size, value: Size) -> Size:
    """Read a size as an index has it, where `32x32` is a list."""
    if isinstance(default, tuple):
        return tuple(int(part) for part in str(value).split("x"))
    return value


def open_target(plan: ModelPlan, dataset: Dataset) -> Template:
    """Return the template of an architecture that no repo has."""
    module = build_module(plan.architecture, plan.sizes, dataset, seed=0)
    saved = module.state_dict()
    state = {name: saved[own] for own, name in published_names(module).items()}
    with tempfile.TemporaryDirectory() as folder:
        text = describe_module(module, plan.architecture)
        write_repo(Path(folder), state, config=text, card="")
        return Template.open(folder)[0]
