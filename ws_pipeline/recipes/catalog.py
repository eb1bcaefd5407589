"""The recipes there are. No I/O.

A recipe is a function without arguments that returns a full value; what it does not name is the
default beside the config's owner. Add one here and it is a Dagster partition, an MLflow run name
and a CLI flag.
"""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ws_pipeline.backbone.config import BackboneConfig, LossConfig, TrainingConfig, ViewConfig
from ws_pipeline.errors import ConfigError, Reason
from ws_pipeline.recipes.recipe import Recipe
from ws_pipeline.tokens.layout import TokenLayout


def tiny() -> Recipe:
    """The demo's and the tests' recipe: under a million parameters.

    Expected cost: about a minute of training on two CPU cores, under 1.5 GB of memory.
    """
    return Recipe(
        name="tiny",
        description="Demo and tests: below 1 M parameters, about a minute on two CPU cores.",
        layout=TokenLayout(kind="dense", token_size=64),
        backbone=BackboneConfig(
            token_size=64, width=128, num_layers=2, num_heads=4, latent_size=32, projection_size=32
        ),
        loss=LossConfig(normalization="layer", contrastive_weight=0.05),
        views=ViewConfig(noise=0.1),
        training=TrainingConfig(num_steps=400, batch_size=32, window_size=64, learning_rate=1e-3),
    )


def small() -> Recipe:
    """The hub paper's Small backbone (arXiv 2510.02096), about 456 M parameters.

    Width 1536, 8+8 layers, token 230, latent 128 and window 512 reproduce the paper's count.
    Expected cost: not for a CPU; on one GPU of 80 GB in the order of a week for the paper's 171 B
    parameters of hub models, in the order of hours for one pass over a few hundred models.
    """
    return Recipe(
        name="small",
        description="The hub paper's Small backbone, 456 M parameters: one 80 GB GPU, days.",
        layout=TokenLayout(kind="dense", token_size=230),
        backbone=BackboneConfig(
            token_size=230,
            width=1536,
            num_layers=8,
            num_heads=16,
            latent_size=128,
            projection_size=128,
        ),
        loss=LossConfig(normalization="layer", contrastive_weight=0.05),
        views=ViewConfig(noise=0.1),
        training=TrainingConfig(
            num_steps=200_000,
            batch_size=32,
            window_size=512,
            learning_rate=2e-5,
            log_every=50,
            evaluate_every=1_000,
            checkpoint_every=1_000,
        ),
    )


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
        close = difflib.get_close_matches(name, RECIPE_NAMES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"There is no recipe {name!r}.{hint} The recipes are {', '.join(RECIPE_NAMES)}.",
            reason=Reason.UNKNOWN_NAME,
        )
    return RECIPES[name]()
