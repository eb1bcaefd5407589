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
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.generation_config import GenerationCase, GenerationConfig
from ws_pipeline.recipes.recipe import Recipe
from ws_pipeline.tokens.corpus_rules import CorpusPolicy

HUB_CORPUS = CorpusPolicy(max_lineage_members=50)
"""Of a whole hub. A choice, not a measurement: on the public hub 52,227 models descend from 299
bases (arXiv 2409.10472), 175 from each on average; no base should be most of a corpus."""


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


def generation() -> Recipe:
    """New weights from small anchors: `tiny` with a latent as large as the token.

    Measured: 92 CPU-seconds of training on the demo's corpus, one to two minutes for each case of
    the study. The case of the Fashion-MNIST zoo is left out where that zoo was not trained.
    """
    cases = (
        GenerationCase(population="cnn-digits", dataset="digits"),
        GenerationCase(population="cnn-digits", dataset="digits-inverted"),
        GenerationCase(population="gpt2-text", dataset="text"),
        GenerationCase(zoo="cnn-fashion", population="cnn-fashion-relu", dataset="fashion-mnist"),
    )
    return Recipe(
        name="generation",
        description="New weights of small models: 0.4 M parameters, no bottleneck, two minutes.",
        evaluation=EvaluationConfig(generation=GenerationConfig(cases=cases)),
        **_parts(presets.generation()),
    )


def small() -> Recipe:
    """A zoo of some 10^8 weights: 21 M parameters.

    Expected cost, by arithmetic and not yet measured: 2.1e16 FLOP are two minutes of an H100 at 200
    TFLOP/s, or a day of two Zen 4 cores at 250 GFLOP/s.
    """
    return Recipe(
        name="small",
        description="21 M parameters for a zoo of some 10^8 weights: minutes on a GPU.",
        **_parts(presets.small()),
    )


def sane_cnn() -> Recipe:
    """SANE's configuration for small CNNs (arXiv 2406.09997), 203 M parameters.

    Expected cost, by arithmetic: 50,000 steps of 2 views of 2,048 tokens at 1.2 GFLOP are 2.5e17
    FLOP: 20 minutes of an H100 at 200 TFLOP/s.
    """
    return Recipe(
        name="sane-cnn",
        description="SANE's backbone for small CNNs: 203 M parameters, under an hour on a GPU.",
        **_parts(presets.sane_cnn()),
    )


def sane_resnet18() -> Recipe:
    """SANE's configuration for ResNet-18 (arXiv 2406.09997), 1.02 G parameters.

    Expected cost, by arithmetic: 50,000 steps of 2 views of 8,192 tokens at 5 GFLOP are 4e18 FLOP:
    6 hours of an H100 at 200 TFLOP/s.
    """
    return Recipe(
        name="sane-resnet18",
        description="SANE's backbone for ResNet-18: 1.02 G parameters, hours on one 80 GB GPU.",
        **_parts(presets.sane_resnet18()),
    )


def hub_small() -> Recipe:
    """The hub paper's Small backbone (arXiv 2510.02096), 456 M parameters.

    Expected cost, by arithmetic: 200,000 steps of 2 views of 16,384 tokens at 2.8 GFLOP are 1.8e19
    FLOP: a day of an H100 at 200 TFLOP/s.
    """
    return Recipe(
        name="hub-small",
        description="The hub paper's Small backbone: 456 M parameters, a day on one 80 GB GPU.",
        corpus=HUB_CORPUS,
        **_parts(presets.hub_small()),
    )


def hub_large() -> Recipe:
    """The hub paper's Large size (arXiv 2510.02096), 908 M parameters, sharded over several GPUs.

    Expected cost, by arithmetic: 3.6e19 FLOP are 25 hours of two H100 at 200 TFLOP/s each.
    """
    return Recipe(
        name="hub-large",
        description="The hub paper's Large size: 908 M parameters, a day on two GPUs.",
        corpus=HUB_CORPUS,
        **_parts(presets.hub_large()),
    )


def _parts(preset: presets.Preset) -> dict[str, Any]:
    """A preset's configs, as a recipe takes them."""
    return {field.name: getattr(preset, field.name) for field in fields(preset)}


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "tiny": tiny,
        "small": small,
        "generation": generation,
        "sane-cnn": sane_cnn,
        "sane-resnet18": sane_resnet18,
        "hub-small": hub_small,
        "hub-large": hub_large,
    }
)
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
