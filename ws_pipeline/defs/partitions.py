"""The three partition dimensions, and which asset has which. No I/O.

Belongs here: partition definitions. Does not: which partitions exist right now (the instance knows
the families; recipes and zoos are code). Repos are rows and never partitions: Dagster suffers above
about 100,000 partitions of an asset, a hub has millions of repos.
"""

from typing import Literal

import dagster as dg

from ws_pipeline.recipes import RECIPE_NAMES
from ws_pipeline.zoo.catalog import ZOO_NAMES

Dimension = Literal["family", "recipe", "zoo", ""]

families = dg.DynamicPartitionsDefinition(name="family")
"""A hub's model types: a new one appears every week, so it is added at run time."""

FAMILY_TAG = "ws/family"
"""On a run: which family it is about, for people who filter."""

recipes = dg.StaticPartitionsDefinition(list(RECIPE_NAMES))
"""A recipe is a function in the code, so a new one comes with a deployment."""

zoos = dg.StaticPartitionsDefinition(list(ZOO_NAMES))
"""The same for a zoo's grid."""

_UNPARTITIONED = (
    dg.AssetKey(["evaluation", "leaderboard"]),
    dg.AssetKey(["evaluation", "composition"]),
)
_DIMENSION_BY_GROUP: dict[str, Dimension] = {
    "hub": "family",
    "weights": "family",
    "tokens": "family",
    "corpus": "",
    "zoo": "zoo",
    "backbone": "recipe",
    "evaluation": "recipe",
}


def dimension(asset_key: dg.AssetKey) -> Dimension:
    """Which dimension an asset of this project is partitioned by; "" for none."""
    return "" if asset_key in _UNPARTITIONED else _DIMENSION_BY_GROUP[asset_key.path[0]]


def partition_keys(instance: dg.DagsterInstance, asset_key: dg.AssetKey) -> list[str]:
    """The partitions of an asset that exist now, sorted; empty for an asset without partitions."""
    by_dimension = {
        "family": lambda: families.get_partition_keys(dynamic_partitions_store=instance),
        "recipe": recipes.get_partition_keys,
        "zoo": zoos.get_partition_keys,
        "": list,
    }
    return sorted(by_dimension[dimension(asset_key)]())
