"""What the composition of a population does to a backbone: the study as an asset."""

from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.resources import HomeResource, MlflowResource, StoreResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.step import Step, markdown_table

COMPOSITION = dg.AssetKey(["evaluation", "composition"])


class CompositionOptions(dg.Config):
    """How much of the study a run makes."""

    max_cells: int = -1
    """Trainings to make now; -1 for all that are missing, 0 to show what is there."""


@dg.asset(
    key=COMPOSITION,
    ins={"splits": dg.AssetIn(SPLITS)},
    group_name="evaluation",
    kinds={"pytorch", "polars", "parquet"},
    owners=["team:evaluation"],
    code_version="2",
    tags={"ws/cost": "minutes"},
)
@retried
def composition(  # noqa: PLR0917 - Dagster passes inputs and resources by name
    context: dg.AssetExecutionContext,
    config: CompositionOptions,
    splits: pl.LazyFrame,
    home: HomeResource,
    store: StoreResource,
    mlflow: MlflowResource,
) -> dg.MaterializeResult[Any]:
    """Reconstruction, probes and generated weights of backbones of nested populations, intervals.

    More models of the same kinds, as many models of more data sets and architectures, the hub, hub
    and zoos; against size at fixed diversity, and against diversity at fixed size. Trainings that
    `ws-pipeline study composition` made already are taken as they are.
    """
    from ws_pipeline.studies.composition import composition_study
    from ws_pipeline.studies.run import run_study

    step = Step.begin(context)
    corpus = splits.collect()
    study = composition_study(corpus)
    done = run_study(
        study,
        home=home.folder,
        store=store.open(),
        corpus=corpus,
        tracking_uri=mlflow.uri(),
        max_cells=None if config.max_cells < 0 else config.max_cells,
        on_cell=lambda cell, state, number, total: context.log.info(
            "%d/%d %s: %s, seed %d", number, total, state, cell.variant.name, cell.seed
        ),
    )
    shown = done.table.with_columns(pl.selectors.float().round(3))
    return step.finish(
        done.results,
        config_digest=config_digest(COMPOSITION, ""),
        metadata={
            "question": study.question,
            "table": dg.MetadataValue.md(markdown_table(shown)),
            "figure": dg.MetadataValue.path(str(done.folder / "figure.svg")),
            "curves": dg.MetadataValue.path(str(done.folder / "curves.svg")),
            "num_cells": done.num_cells,
            "num_done": done.num_done,
        },
    )
