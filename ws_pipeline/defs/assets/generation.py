"""What generated weights are worth, by recipe."""

from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.backbone import MODEL
from ws_pipeline.defs.assets.zoo import MODELS as ZOO_MODELS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.partitions import recipes
from ws_pipeline.defs.resources import HomeResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.runs import find_model
from ws_pipeline.defs.step import Step, markdown_table
from ws_pipeline.recipes import recipe

GENERATION = dg.AssetKey(["evaluation", "generation"])


@dg.asset(
    key=GENERATION,
    partitions_def=recipes,
    deps=[MODEL, dg.AssetDep(ZOO_MODELS, partition_mapping=dg.AllPartitionMapping())],
    group_name="evaluation",
    kinds={"pytorch", "polars", "parquet"},
    owners=["team:evaluation"],
    code_version="1",
    tags={"ws/cost": "minutes"},
)
@retried
def generation(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[Any]:
    """New weights from anchors of a zoo, against every baseline with the same budget.

    A recipe names the cases; those whose zoo was not trained here are left out and counted. A
    recipe without cases has an empty table.
    """
    from ws_pipeline.backbone.loading import load_backbone
    from ws_pipeline.evaluation.generation import evaluate_generation, split_cases

    step = Step.begin(context)
    chosen = recipe(step.partition)
    zoos = home.folder / "zoos"
    config, absent = split_cases(chosen.evaluation.generation, zoos)
    results = evaluate_generation(
        load_backbone(find_model(home.folder, chosen.name)),
        zoos,
        recipe=chosen.name,
        config=config,
        confidence=chosen.evaluation.confidence,
        training_seed=chosen.training.seed,
        data=home.data_folder,
    )
    return step.finish(
        results,
        config_digest=config_digest(GENERATION, step.partition),
        metadata={
            "results": key_table(results),
            "num_cases": len(config.cases),
            "left_out": [f"{case.name}: no zoo {case.zoo}" for case in absent],
        },
    )


def key_table(results: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Accuracy before any step and steps to target, as Markdown."""
    shown = results.filter(
        ((pl.col("metric") == "accuracy") & (pl.col("slice") == "step:0"))
        | (pl.col("metric") == "steps_to_target")
    )
    numbers = pl.col("value", "low", "high").round(3).cast(pl.String).fill_null("")
    columns = ("target", "features", "metric", "value", "low", "high", "num_models")
    return dg.MetadataValue.md(markdown_table(shown.with_columns(numbers).select(columns)))
