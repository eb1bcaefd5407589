"""The recipes there are. No I/O.

A recipe is a preset of the backbone, a function whose docstring states the expected cost
(``backbone.presets``), with what it is trained on and asked; what neither names is the default
beside the config's owner. Add a preset and it is a Dagster partition, an MLflow run name and a CLI
flag.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from types import MappingProxyType
from typing import Any

from ws_pipeline.backbone.presets import PRESETS
from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.generation_config import GenerationCase, GenerationConfig
from ws_pipeline.recipes.recipe import Recipe
from ws_pipeline.tokens.corpus_rules import CorpusPolicy

HUB_CORPUS = CorpusPolicy(max_lineage_members=50)
"""Of a whole hub. A choice, not a measurement: on the public hub 52,227 models descend from 299
bases (arXiv 2409.10472), 175 from each on average; no base should be most of a corpus."""


CORPUS_POLICIES: Mapping[str, CorpusPolicy] = MappingProxyType(
    {"hub-small": HUB_CORPUS, "hub-large": HUB_CORPUS}
)
"""Of the recipes that are meant for a whole hub; the others take every original."""

GENERATION_CASES = (
    GenerationCase(population="cnn-digits", dataset="digits"),
    GenerationCase(population="cnn-digits", dataset="digits-inverted"),
    GenerationCase(population="gpt2-text", dataset="text"),
    GenerationCase(zoo="cnn-fashion", population="cnn-fashion-relu", dataset="fashion-mnist"),
)
"""About a minute each; that of the Fashion-MNIST zoo is left out where it was not trained."""

EVALUATIONS: Mapping[str, EvaluationConfig] = MappingProxyType(
    {"generation": EvaluationConfig(generation=GenerationConfig(cases=GENERATION_CASES))}
)
"""Of the recipes that are asked more than the default."""


def build_recipe(name: str) -> Recipe:
    """The preset of a name with what it is trained on and asked."""
    preset = PRESETS[name]()
    parts: dict[str, Any] = {field.name: getattr(preset, field.name) for field in fields(preset)}
    return Recipe(
        name=name,
        corpus=CORPUS_POLICIES.get(name, CorpusPolicy()),
        evaluation=EVALUATIONS.get(name, EvaluationConfig()),
        **parts,
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {name: partial(build_recipe, name) for name in PRESETS}
)
RECIPE_NAMES: tuple[str, ...] = tuple(RECIPES)


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
