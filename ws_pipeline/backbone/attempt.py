"""One attempt at a training job: data, loop, observers, and what is made of the final model.

What it is: everything wired together. What it is not: arguments, exit codes (``train``), the loop
(``loop``). Does I/O: reads the corpus snapshot and shards, writes to the job's folder and MLflow.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate import Accelerator

from ws_pipeline.backbone.batches import Batch
from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.embed import embed_models
from ws_pipeline.backbone.evaluate import reconstruct_models
from ws_pipeline.backbone.figures import draw_errors_by_role, draw_latent_map, draw_losses
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline.backbone.model import Backbone, num_parameters
from ws_pipeline.backbone.pipes import DagsterReport
from ws_pipeline.backbone.progress import ProgressBar
from ws_pipeline.backbone.publication import MODEL_FOLDER, TrainingResult, publish_model
from ws_pipeline.backbone.registry import ERROR, SNAPSHOT
from ws_pipeline.backbone.signals import StopRequest
from ws_pipeline.backbone.tracking import MlflowRun
from ws_pipeline.backbone.views import unit_orders
from ws_pipeline.errors import MissingInputError
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.mixture import Mixture, weigh_models
from ws_pipeline.tokens.windows import WindowDataset

VALIDATION_SEED = 1_000_003
"""Added to the job's seed: validation windows are the same in every evaluation of a run."""

VALIDATION_MIXTURE = Mixture()
"""Not the training's: runs of different mixtures are compared on the same windows."""

MAX_SUMMARY_VALUES = 50_000_000
"""Weights that the final figures are drawn from, smallest models first; a minute on two cores."""


class Attempt:
    """One attempt at a job.

    Args:
        job: What to train.
        accelerator: Where, and with how many others.
        report: The way to Dagster.
        stop: Asked after every step.
        began: `time.monotonic()` at the start of the process.
    """

    def __init__(
        self,
        job: TrainJob,
        *,
        accelerator: Accelerator,
        report: DagsterReport,
        stop: StopRequest,
        began: float,
    ) -> None:
        self.job = job
        self.began = began
        self.report = report
        self.is_main = bool(accelerator.is_main_process)
        self.store = Store.open(job.store_root)
        self.corpus = self.store.snapshots.scan(job.snapshot).collect()
        self.checkpoints = CheckpointFolder(out_dir=Path(job.out_dir), job_digest=job.digest())
        self.progress = ProgressBar(job.training.num_steps, main=self.is_main)
        self.loop = TrainingLoop(
            job,
            accelerator=accelerator,
            train=self._train_batches(accelerator),
            val=self._val_batches(accelerator),
            checkpoints=self.checkpoints,
            observers=[self.progress, report],
            stop=stop,
        )
        self.progress.start(self.loop.progress.step)
        self.tracker = self._open_tracker()
        self.report.message(self._greeting())

    def train(self) -> bool:
        """Train to the end; False if it was asked to stop before."""
        status = "FAILED"
        try:
            finished = self.loop.run()
            status = "" if finished else "KILLED"
        finally:
            self.progress.close()
            if self.tracker is not None and status:
                self.tracker.close(status)
        return finished

    def conclude(self) -> TrainingResult | None:
        """Measure the final model, draw, publish; None on all processes but the main one."""
        backbone = self.loop.finished_backbone().eval()
        return self._publish(backbone) if self.is_main else None

    def _publish(self, backbone: Backbone) -> TrainingResult:
        metrics = last_values(self.loop)
        figures = {"loss": draw_losses(self.loop.history.points)}
        held_out = within_budget(self._split("val"))
        if held_out.height:
            errors = reconstruct_models(backbone, self.store, held_out)
            metrics |= summarize_errors(errors)
            figures["reconstruction_by_role"] = draw_errors_by_role(errors)
        shown = within_budget(self.corpus)
        vectors = embed_models(backbone, self.store, shown)["embedding"].to_list()
        figures["latent_map"] = draw_latent_map(np.array(vectors), shown["family"].to_list())
        if self.tracker is not None:
            self.tracker.metrics(self.job.training.num_steps, metrics)
            for name, figure in figures.items():
                self.tracker.figure(name, figure)
        result = publish_model(backbone, self.checkpoints, self._values(metrics))
        if self.tracker is not None:
            self.tracker.summary(result.metadata())
            folder = self.checkpoints.out_dir / MODEL_FOLDER
            self.tracker.register(folder, self.job.mlflow_experiment, version_tags(result))
            self.tracker.close("FINISHED")
        return result

    def _split(self, name: str) -> pl.DataFrame:
        return self.corpus.filter(pl.col("split") == name)

    def _train_batches(self, accelerator: Accelerator) -> WindowDataset:
        rows = self._split("train")
        if not rows.height:
            raise MissingInputError(
                f"A training needs models in the train split, but snapshot "
                f"{self.job.snapshot[:12]} has none among its {self.corpus.height}; crawl more."
            )
        config = self.job.training
        rows = rows.with_columns(weight=weigh_models(rows, self.job.mixture))
        return WindowDataset(
            self.store,
            rows,
            layout=self.job.layout,
            window_size=config.window_size,
            batch_size=config.batch_size,
            num_steps=config.num_steps,
            seed=config.seed,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
            unit_orders=unit_orders(self.job.views, self.job.loss),
        )

    def _val_batches(self, accelerator: Accelerator) -> list[Batch]:
        """Return this process's validation windows, in memory; none without a validation split."""
        rows, config = self._split("val"), self.job.training
        if not rows.height:
            return []
        windows = WindowDataset(
            self.store,
            rows.with_columns(weight=weigh_models(rows, VALIDATION_MIXTURE)),
            layout=self.job.layout,
            window_size=config.window_size,
            batch_size=config.batch_size,
            num_steps=config.num_validation_batches,
            seed=config.seed + VALIDATION_SEED,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )
        return [windows[step] for step in range(len(windows))]

    def _open_tracker(self) -> MlflowRun | None:
        if not self.is_main or not self.job.mlflow_tracking_uri:
            return None
        tags = {"precision": self.loop.precision, "device": self.loop.device.type}
        tracker = MlflowRun.open(
            self.job, tags=tags | {"torch": torch.__version__}, corpus=self.corpus
        )
        tracker.replay(self.loop.history.points)
        tracker.watch_system(self.job.mlflow_tracking_uri)
        self.loop.observers.append(tracker)
        return tracker

    def _greeting(self) -> str:
        loop, config = self.loop, self.job.training
        return (
            f"training {num_parameters(loop.backbone):,} parameters on "
            f"{self._split('train').height} "
            f"models from step {loop.progress.step} to {config.num_steps} in {loop.precision} on "
            f"{self.job.num_processes} x {loop.device.type}"
        )

    def _values(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Return the fields of the result that are known before the model is written."""
        job, loop, tracker = self.job, self.loop, self.tracker
        counts = self.corpus["split"].value_counts().sort("split")
        return {
            "job_digest": job.digest(),
            "recipe_name": job.recipe_name,
            "recipe_digest": job.recipe_digest,
            "snapshot": job.snapshot,
            "mlflow_run_id": "" if tracker is None else tracker.run_id,
            "mlflow_url": "" if tracker is None else tracker.url,
            "num_params": num_parameters(loop.backbone),
            "num_steps": loop.progress.step,
            "num_models": dict(counts.rows()),
            "metrics": dict(metrics),
            "seconds": time.monotonic() - self.began,
            "tokens_per_second": loop.throughput.tokens_per_second,
            "precision": loop.precision,
            "device": loop.device.type,
        }


def version_tags(result: TrainingResult) -> dict[str, str]:
    """Return what a registered version says of itself."""
    tags = {
        "recipe": result.recipe_name,
        "model_sha256": result.model_sha256,
        "job_digest": result.job_digest,
        SNAPSHOT: result.snapshot,
    }
    error = result.metrics.get("val/relative_error_median")
    return tags if error is None else {**tags, ERROR: f"{error:.6g}"}


def last_values(loop: TrainingLoop) -> dict[str, float]:
    """Return the newest value of every metric of the history."""
    values: dict[str, float] = {}
    for point in loop.history.points:
        values |= point.values
    return values


def summarize_errors(errors: pl.DataFrame) -> dict[str, float]:
    """Return the median over layers and the mean of `reconstruct_models`' relative errors."""
    finite = errors.filter(pl.col("relative_error").is_finite())["relative_error"]
    if not len(finite):
        return {}
    return {
        "val/relative_error_median": float(np.median(finite.to_numpy())),
        "val/relative_error_mean": float(np.mean(finite.to_numpy())),
    }


def within_budget(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the smallest models whose weights together stay within `MAX_SUMMARY_VALUES`."""
    ordered = rows.sort("num_params", "hub_id", "revision")
    return ordered.filter(pl.col("num_params").cum_sum() <= MAX_SUMMARY_VALUES)
