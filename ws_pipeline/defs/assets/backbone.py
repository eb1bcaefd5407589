"""The backbone and what it says of every model, by recipe."""

import dataclasses
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from ws_pipeline.backbone.config import EMBEDDING_VERSION
from ws_pipeline.backbone.job import TRAINER_VERSION, TrainJob
from ws_pipeline.defs.assets.corpus import SPLITS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.digests import file_version
from ws_pipeline.defs.io_managers import table_key
from ws_pipeline.defs.launcher import LauncherResource
from ws_pipeline.defs.partitions import recipes
from ws_pipeline.defs.resources import HomeResource, MlflowResource, StoreResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.runs import (
    TRAINED,
    find_model,
    load_backbones,
    point_to,
    run_folder,
    vectors_version,
)
from ws_pipeline.defs.step import Step
from ws_pipeline.recipes import recipe, to_dict
from ws_pipeline.settings import default_processes
from ws_pipeline.storage.store import Store

MODEL = dg.AssetKey(["backbone", "model"])
EMBEDDINGS = dg.AssetKey(["backbone", "embeddings"])

HALO_SHARE = 8
"""One eighth of a window on either side is context only: the papers' 64 of 512."""


class TrainOptions(dg.Config):
    """What a launch may change without being another experiment."""

    num_processes: int = Field(default=0, ge=0, description="0: $WS_PROCESSES, else 1")

    @property
    def processes(self) -> int:
        """How many to launch."""
        return self.num_processes or default_processes()


@dg.asset(
    key=MODEL,
    partitions_def=recipes,
    deps=[SPLITS],
    group_name="backbone",
    kinds={"pytorch", "mlflow", "safetensors"},
    owners=["team:backbone"],
    code_version=TRAINER_VERSION,
    tags={"ws/cost": "minutes-to-days"},
)
@retried
def model(  # noqa: PLR0917 - Dagster passes config and resources by name
    context: dg.AssetExecutionContext,
    config: TrainOptions,
    home: HomeResource,
    store: StoreResource,
    mlflow: MlflowResource,
    launcher: LauncherResource,
) -> dg.MaterializeResult[Any]:
    """The weight-space autoencoder of a recipe, trained by `accelerate launch` under Dagster Pipes.

    Checkpoints and the final safetensors + config.json lie in the run's folder; parameters, metrics
    and figures are in MLflow under the linked run. Interrupted, it goes on from its last
    checkpoint.
    """
    step = Step.begin(context)
    job = make_job(context, config, home.folder, store.open(), mlflow)
    out_dir = Path(job.out_dir)
    job_path = out_dir / "job.json"
    job.write(job_path)
    invocation = launcher.run(
        context=context,
        module="ws_pipeline.backbone.train",
        arguments=["--job", str(job_path)],
        num_processes=config.processes,
        env={"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    reported = invocation.get_materialize_result()
    weights = out_dir / "model" / "model.safetensors"
    point_to(out_dir)
    return step.finish(
        config_digest=config_digest(MODEL, step.partition),
        data_version=file_version(weights),
        metadata={
            **(reported.metadata or {}),
            "snapshot": job.snapshot,
            "recipe": dg.MetadataValue.json(dict(job.recipe)),
            "recipe_digest": job.recipe_digest,
            "path": dg.MetadataValue.path(str(weights.parent)),
        },
    )


def make_job(
    context: dg.AssetExecutionContext,
    options: TrainOptions,
    home: Path,
    store: Store,
    mlflow: MlflowResource,
) -> TrainJob:
    """The training of one recipe on the corpus as it is now."""
    chosen = recipe(context.partition_key)
    job = TrainJob(
        recipe_name=chosen.name,
        recipe_digest=chosen.digest(),
        recipe=to_dict(chosen),
        store_root=store.root,
        snapshot=corpus_snapshot(context.instance),
        backbone=chosen.backbone,
        loss=chosen.loss,
        views=chosen.views,
        training=chosen.training,
        layout=chosen.layout,
        mixture=chosen.mixture,
        out_dir="",
        mlflow_tracking_uri=mlflow.uri(),
        mlflow_experiment=mlflow.experiment,
        mlflow_ui_url=mlflow.page(),
        tags={"dagster_run_id": context.run.run_id, "recipe": chosen.name},
        num_processes=options.processes,
    )
    return dataclasses.replace(job, out_dir=str(run_folder(home, chosen.name, job.digest())))


def corpus_snapshot(instance: dg.DagsterInstance) -> str:
    """The snapshot that the latest `corpus/splits` made."""
    event = instance.get_latest_materialization_event(SPLITS)
    made = event.asset_materialization if event else None
    if made is None:
        raise dg.Failure("corpus/splits was never materialised: run it first.", allow_retries=False)
    return str(made.metadata["snapshot"].value)


@dg.asset(
    key=EMBEDDINGS,
    partitions_def=recipes,
    ins={"splits": dg.AssetIn(SPLITS)},
    deps=[MODEL],
    group_name="backbone",
    kinds={"pytorch", "polars", "parquet"},
    owners=["team:backbone"],
    code_version=EMBEDDING_VERSION,
)
@retried
def embeddings(
    context: dg.AssetExecutionContext,
    splits: pl.LazyFrame,
    home: HomeResource,
    store: StoreResource,
) -> dg.MaterializeResult[Any]:
    """A vector per model and per layer, by the trained backbone and by the same one untrained.

    Vectors that the same weights already made of the same revision are taken over.
    """
    from ws_pipeline.backbone.embed import embed_models

    step = Step.begin(context)
    chosen = recipe(step.partition)
    opened = store.open()
    corpus = splits.collect()
    weights_digest = vectors_version(find_model(home.folder, chosen.name))
    frames = []
    for name, backbone in load_backbones(home.folder, chosen).items():
        known = _known_embeddings(opened, step.partition, name, weights_digest, corpus)
        fresh = corpus.join(known, on=["hub_id", "revision"], how="anti")
        frames += [known] if known.height else []
        if fresh.height:
            window = chosen.training.window_size
            made = embed_models(backbone, opened, fresh, window=window, halo=window // HALO_SHARE)
            frames.append(_label(made, name, weights_digest))
    frame = pl.concat(frames, how="vertical_relaxed").sort("representation", "hub_id")
    num_reused = int(frame.filter(pl.col("representation") == TRAINED)["reused"].sum())
    return step.finish(
        frame,
        config_digest=config_digest(EMBEDDINGS, step.partition),
        num_processed=corpus.height - num_reused,
        num_reused=num_reused,
        metadata={"num_models": corpus.height, "weights": weights_digest},
    )


def _known_embeddings(
    store: Store, recipe_name: str, representation: str, weights: str, corpus: pl.DataFrame
) -> pl.DataFrame:
    """Stored vectors that are still right: of the same weights, for revisions in the corpus."""
    wanted = corpus.select("hub_id", "revision")
    key = table_key(EMBEDDINGS, recipe_name)
    if not store.tables.exists(key):
        return wanted.clear()
    stored = store.tables.scan(key).collect()
    same = (pl.col("representation") == representation) & (pl.col("weights") == weights)
    return (
        stored.filter(same)
        .join(wanted, on=["hub_id", "revision"], how="semi")
        .with_columns(reused=pl.lit(value=True))
    )


def _label(frame: pl.DataFrame, representation: str, weights: str) -> pl.DataFrame:
    """Say whose vectors these are."""
    return frame.with_columns(
        representation=pl.lit(representation),
        weights=pl.lit(weights),
        reused=pl.lit(value=False),
    )
