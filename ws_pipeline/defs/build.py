"""Everything put together. No I/O.

`build_defs()` is the code location; tests and the refresh driver build their own with other
resources.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ws_pipeline.defs import automation
from ws_pipeline.defs.assets import (
    backbone,
    composition,
    corpus,
    evaluation,
    generation,
    hub,
    tokens,
    weights,
    zoo,
)
from ws_pipeline.defs.checks import TABLE_CHECKS
from ws_pipeline.defs.executors import IN_PROCESS, find_executor
from ws_pipeline.defs.freshness import the_hub_was_looked_at_lately
from ws_pipeline.defs.generation_checks import GENERATION_CHECKS
from ws_pipeline.defs.io_managers import ParquetIOManager
from ws_pipeline.defs.jobs import ALL_JOBS
from ws_pipeline.defs.launcher import LauncherResource
from ws_pipeline.defs.left_out_checks import LEFT_OUT_CHECKS
from ws_pipeline.defs.model_checks import MODEL_CHECKS
from ws_pipeline.defs.resources import (
    HomeResource,
    HubResource,
    MlflowResource,
    PolicyResource,
    StoreResource,
)
from ws_pipeline.defs.schedules import nightly_crawl
from ws_pipeline.defs.sensors import follow_the_hub, watch_freshness

FAMILY_STAGES = [hub.headers, hub.selection, hub.files, weights.layers, tokens.shards]
ASSETS = [
    hub.repos,
    *FAMILY_STAGES,
    corpus.splits,
    backbone.model,
    backbone.embeddings,
    zoo.zoo_models,
    zoo.zoo_diversity,
    evaluation.properties,
    evaluation.retrieval,
    evaluation.reconstruction,
    generation.generation,
    evaluation.leaderboard,
    composition.composition,
]


def default_resources(
    *, home: str = "", endpoint: str = "", served_at: str = "", policy: str = ""
) -> dict[str, Any]:
    """The embedded defaults; what is left empty comes from the environment when a run needs it."""
    at = HomeResource(path=home)
    store = StoreResource(home=at)
    return {
        "home": at,
        "store": store,
        "io_manager": ParquetIOManager(store=store),
        "hub": HubResource(home=at, endpoint=endpoint, served_at=served_at),
        "mlflow": MlflowResource(home=at),
        "launcher": LauncherResource(),
        "policy": PolicyResource(recipe=policy),
    }


def build_defs(
    overrides: Mapping[str, Any] | None = None, *, executor: str = IN_PROCESS
) -> dg.Definitions:
    """The whole code location.

    Args:
        overrides: Replace resources by name.
        executor: Where steps run, a name of `defs.executors`.
    """
    return dg.Definitions(
        assets=automation.apply(ASSETS),
        asset_checks=[
            *TABLE_CHECKS,
            *LEFT_OUT_CHECKS,
            *MODEL_CHECKS,
            *GENERATION_CHECKS,
            the_hub_was_looked_at_lately,
        ],
        jobs=ALL_JOBS,
        schedules=[nightly_crawl],
        sensors=[follow_the_hub, watch_freshness, automation.follow_the_data],
        resources={**default_resources(), **(overrides or {})},
        executor=find_executor(executor),
    )
