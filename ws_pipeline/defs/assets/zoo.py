"""Zoos: populations trained on purpose, published as hub repos, by zoo."""

from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.partitions import zoos
from ws_pipeline.defs.resources import HomeResource
from ws_pipeline.defs.step import Step
from ws_pipeline.zoo.catalog import zoo_config

MODELS = dg.AssetKey(["zoo", "models"])
DIVERSITY = dg.AssetKey(["zoo", "diversity"])


@dg.asset(
    key=MODELS,
    partitions_def=zoos,
    group_name="zoo",
    kinds={"pytorch", "safetensors", "parquet"},
    owners=["team:zoo"],
    code_version="1",
    tags={"ws/cost": "minutes"},
)
def zoo_models(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[Any]:
    """A trained zoo: its models as repos in the embedded hub, with cards of factors and metrics.

    A complete folder with the same config digest is reused, and repos that did not change are not
    copied again.
    """
    from ws_pipeline.zoo.publish import publish_zoo
    from ws_pipeline.zoo.train import train_zoo

    step = Step.begin(context)
    folder = home.folder / "zoos" / step.partition
    config = zoo_config(step.partition)
    summary = train_zoo(config, folder, data=home.data_folder)
    num_published = publish_zoo(folder, home.folder / "hub", config.owner)
    index = pl.read_parquet(folder / "index.parquet")
    return step.finish(
        index,
        config_digest=config_digest(MODELS, step.partition),
        num_processed=num_published,
        num_reused=summary.num_models - num_published,
        metadata={
            "num_models": summary.num_models,
            "num_diverged": summary.num_diverged,
            "num_params": summary.num_params,
            "num_published": num_published,
            "families": dg.MetadataValue.json(dict(summary.families)),
            "training_seconds": dg.MetadataValue.json(dict(summary.seconds)),
            "folder": dg.MetadataValue.path(str(folder)),
        },
    )


@dg.asset(
    key=DIVERSITY,
    partitions_def=zoos,
    deps=[MODELS],
    group_name="zoo",
    kinds={"numpy", "parquet"},
    owners=["team:zoo"],
    code_version="1",
)
def zoo_diversity(
    context: dg.AssetExecutionContext, home: HomeResource
) -> dg.MaterializeResult[Any]:
    """Weight-space and behavioural diversity: distances, accuracy spread, prediction agreement."""
    from ws_pipeline.zoo.diversity import measure_diversity

    step = Step.begin(context)
    frame = measure_diversity(home.folder / "zoos" / step.partition)
    return step.finish(frame, config_digest=config_digest(DIVERSITY, step.partition))
