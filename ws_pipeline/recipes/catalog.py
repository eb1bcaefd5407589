"""The recipes there are. No I/O.

A recipe is a function without arguments that returns a full value; what it does not name is the
default beside the config's owner. Add one here and it is a Dagster partition, an MLflow run name
and a CLI flag.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from ws_pipeline.backbone import presets
from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.recipes.recipe import Recipe
from ws_pipeline.tokens.corpus_rules import CorpusPolicy


def tiny() -> Recipe:
    """The demo's and the tests' recipe: 0.4 M parameters.

    Expected cost: 800 steps of 2,048 tokens in about 70 CPU-seconds (bf16 on a CPU that has it),
    and as much again for start, figures and MLflow on a busy machine; under 1.5 GB of memory.
    """
    return Recipe(
        name="tiny",
        description="Demo and tests: 0.4 M parameters, one to two minutes on two CPU cores.",
        **_parts(presets.tiny()),
    )


def small() -> Recipe:
    """The hub paper's Small backbone (arXiv 2510.02096), 456 M parameters.

    Expected cost: not for a CPU. 3.3 G tokens at about 3 GFLOP each are in the order of days on
    one GPU of 80 GB.
    """
    return Recipe(
        name="small",
        description="The hub paper's Small backbone: 456 M parameters, days on one 80 GB GPU.",
        # A choice, not a measurement: on the public hub 52,227 models descend from 299 bases
        # (arXiv 2409.10472), 175 from each on average; no base should be most of a corpus.
        corpus=CorpusPolicy(max_lineage_members=50),
        **_parts(presets.small()),
    )


def _parts(preset: presets.Preset) -> dict[str, Any]:
    """A preset's configs, as a recipe takes them."""
    return {field.name: getattr(preset, field.name) for field in fields(preset)}


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType({"tiny": tiny, "small": small})
RECIPE_NAMES: tuple[str, ...] = tuple(RECIPES)
DEFAULT_RECIPE = "tiny"
"""Whose policies the corpus follows, and what is trained, unless a run names another."""


def recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ConfigError: With reason `unknown_name`, the closest name there is, and all names.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPE_NAMES, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"There is no recipe {name!r}.{hint} The recipes are {', '.join(RECIPE_NAMES)}.",
            reason=Reason.UNKNOWN_NAME,
        )
    return RECIPES[name]()
