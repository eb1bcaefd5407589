"""Which configuration each asset reads beside its inputs, as a digest. No I/O.

Belongs here: one line an asset. The digest stands in every materialisation's tags, and a refresh
compares it with what the code says now: a changed policy or recipe makes exactly its assets stale.
"""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from ws_pipeline.defs.digests import digest
from ws_pipeline.recipes import recipe, to_dict
from ws_pipeline.zoo.catalog import zoo_config

_TRAINED_BY = ("layout", "backbone", "loss", "views", "training")
"""Parts of a recipe that change the trained weights; policies act through the corpus instead."""


def config_digest(asset_key: dg.AssetKey, partition: str, *, policy: str = "") -> str:
    """Digest of the configs of one asset partition.

    Args:
        asset_key: The asset.
        partition: Family, recipe or zoo; "" for none.
        policy: Name of the recipe whose policies the corpus follows.
    """
    name = asset_key.to_user_string()
    read = _CONFIGS.get(name) or _CONFIGS_BY_GROUP.get(asset_key.path[0])
    return digest(read(partition, policy) if read else None)


def _recipe_parts(name: str, parts: tuple[str, ...]) -> Mapping[str, Any]:
    values = to_dict(recipe(name))
    return {part: values[part] for part in parts}


_CONFIGS: Mapping[str, Callable[[str, str], Any]] = {
    "hub/selection": lambda _, policy: _recipe_parts(policy, ("selection",)),
    "corpus/splits": lambda _, policy: _recipe_parts(policy, ("corpus", "splits")),
    "backbone/model": lambda name, _: _recipe_parts(name, _TRAINED_BY),
    "backbone/embeddings": lambda name, _: _recipe_parts(name, ("layout", "training")),
    "evaluation/leaderboard": lambda *_: None,
    "evaluation/composition": lambda *_: to_dict(recipe("tiny")),
}
_CONFIGS_BY_GROUP: Mapping[str, Callable[[str, str], Any]] = {
    "zoo": lambda name, _: to_dict(zoo_config(name)),
    "evaluation": lambda name, _: _recipe_parts(name, ("evaluation",)),
}
