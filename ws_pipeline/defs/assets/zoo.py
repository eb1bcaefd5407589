"""Zoos: populations trained on purpose, published as hub repos, by zoo."""

from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.launcher import LauncherResource
from ws_pipeline.defs.partitions import zoos
from ws_pipeline.defs.resources import HomeResource, MlflowResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.step import Step, markdown_table
from ws_pipeline.zoo.catalog import zoo_config

MODELS = dg.AssetKey(["zoo", "models"])
DIVERSITY = dg.AssetKey(["zoo", "diversity"])


class ZooOptions(dg.Config):
    """How a zoo is trained, which changes no model."""

    num_processes: int = Field(
        default=1, ge=1, description="More than one are started by Accelerate, each on its own GPU"
    )


@dg.asset(
    key=MODELS,
    partitions_def=zoos,
    group_name="zoo",
    kinds={"pytorch", "safetensors", "parquet"},
    owners=["team:zoo"],
    code_version="1",
    tags={"ws/cost": "minutes"},
)
@retried
def zoo_models(
    context: dg.AssetExecutionContext,
    config: ZooOptions,
    home: HomeResource,
    launcher: LauncherResource,
) -> dg.MaterializeResult[Any]:
    """A trained zoo: its models as repos in the embedded hub, with cards of factors and metrics.

    A complete folder with the same config digest is reused, and repos that did not change are not
    copied again.
    """
    from ws_pipeline.backbone.loading import best_device
    from ws_pipeline.zoo.publish import publish_zoo
    from ws_pipeline.zoo.train import read_summary, train_zoo

    step = Step.begin(context)
    folder = home.folder / "zoos" / step.partition
    zoo = zoo_config(step.partition)
    if config.num_processes > 1 and read_summary(folder, zoo) is None:
        launcher.run(
            context=context,
            module="ws_pipeline.zoo.share",
            arguments=["--zoo", zoo.name, "--folder", str(folder), "--data", str(home.data_folder)],
            num_processes=config.num_processes,
        )
    summary = train_zoo(zoo, folder, data=home.data_folder, device=best_device())
    num_published = publish_zoo(folder, home.folder / "hub", zoo.owner)
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
            "accuracies": dg.MetadataValue.md(_tabulate_accuracies(index)),
            "training_seconds": dg.MetadataValue.json(dict(summary.seconds)),
            "folder": dg.MetadataValue.path(str(folder)),
        },
    )


def _tabulate_accuracies(index: pl.DataFrame) -> str:
    """Accuracies of the final models of each population as a Markdown table."""
    finals = index.filter("is_final")
    accuracy = pl.col("accuracy")
    return markdown_table(
        finals.group_by("population", maintain_order=True).agg(
            pl.len().alias("models"),
            (pl.col("status") == "diverged").sum().alias("diverged"),
            accuracy.min().round(3).alias("lowest"),
            accuracy.median().round(3).alias("median"),
            accuracy.max().round(3).alias("highest"),
        )
    )


@dg.asset(
    key=DIVERSITY,
    partitions_def=zoos,
    deps=[MODELS],
    group_name="zoo",
    kinds={"numpy", "parquet", "mlflow"},
    owners=["team:zoo"],
    code_version="2",
)
@retried
def zoo_diversity(
    context: dg.AssetExecutionContext, home: HomeResource, mlflow: MlflowResource
) -> dg.MaterializeResult[Any]:
    """How different a zoo's models are, in weights and behaviour, and which factor explains what.

    The report (figures, card, Parquet files) is published as the zoo's data-set repo and logged as
    the zoo's run in MLflow.
    """
    from ws_pipeline.zoo.dataset_repo import write_report
    from ws_pipeline.zoo.diversity import measure_diversity
    from ws_pipeline.zoo.diversity_report import tabulate_explained
    from ws_pipeline.zoo.index import read_index
    from ws_pipeline.zoo.publish import publish_report
    from ws_pipeline.zoo.tracking import log_zoo

    step = Step.begin(context)
    config = zoo_config(step.partition)
    folder = home.folder / "zoos" / step.partition
    frame = measure_diversity(folder, data=home.data_folder)
    report = write_report(folder, config, frame)
    publish_report(folder, home.folder / "hub", config.owner, config.name)
    index = read_index(folder)
    counts = {
        "num_models": index.filter("is_final").height,
        "num_repos": index.height,
        "num_params": int(index["num_params"].sum()),
    }
    run_id = log_zoo(config, report, frame, counts, uri=mlflow.uri())
    explained = tabulate_explained(frame)
    numbers = pl.selectors.float().round(3)
    return step.finish(
        frame,
        config_digest=config_digest(DIVERSITY, step.partition),
        metadata={
            **counts,
            "explained": dg.MetadataValue.md(markdown_table(explained.with_columns(numbers))),
            "report": dg.MetadataValue.path(str(report / "README.md")),
            "data_set_repo": f"datasets/{config.owner}/{config.name}",
            "mlflow_run_id": run_id,
        },
    )
