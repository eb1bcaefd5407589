"""One cell's training in this process, with its MLflow run. Does I/O.

What it is: what ``backbone.attempt`` does for a recipe, without validation, publication or a
process of its own. What it is not: a measurement (``bench``).
"""

from pathlib import Path

import numpy as np
import polars as pl
from accelerate import Accelerator

from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline.backbone.model import Backbone, num_parameters
from ws_pipeline.backbone.views import unit_orders
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layer_table import LayerTable
from ws_pipeline.tokens.mixture import weigh_models
from ws_pipeline.tokens.windows import WindowDataset

RECORD_SCHEMA = pl.Schema(
    {
        "num_params": pl.Int64,
        "num_train_models": pl.Int64,
        "num_train_weights": pl.Int64,
        "latents_per_weight": pl.Float64,
        "loss": pl.Float64,
        "cpu_seconds": pl.Float64,
    }
)


def open_windows(store: Store, job: TrainJob, rows: pl.DataFrame) -> WindowDataset:
    """Return the windows that a training sees, in the orders of units that its views ask for."""
    config = job.training
    return WindowDataset(
        store,
        rows.with_columns(weight=weigh_models(rows, job.mixture)),
        layout=job.layout,
        window_size=config.window_size,
        batch_size=config.batch_size,
        num_steps=config.num_steps,
        seed=config.seed,
        unit_orders=unit_orders(job.views, job.loss),
    )


class CellTraining:
    """A training from its first step, or from its last checkpoint; a context manager.

    Args:
        store: Shards of the models.
        job: The training.
        rows: Corpus rows that it is on.
    """

    def __init__(self, store: Store, job: TrainJob, rows: pl.DataFrame) -> None:
        self.job, self.rows = job, rows
        folder = Path(job.out_dir)
        self.loop = TrainingLoop(
            job,
            accelerator=Accelerator(mixed_precision="no"),
            train=open_windows(store, job, rows),
            val=[],
            checkpoints=CheckpointFolder(out_dir=folder, job_digest=job.digest()),
        )
        self.tracker = None
        if job.mlflow_tracking_uri:
            from ws_pipeline.backbone.tracking import MlflowRun

            self.tracker = MlflowRun.open(job, tags={}, corpus=rows)
            self.tracker.replay(self.loop.history.points)
            self.loop.observers.append(self.tracker)

    def __enter__(self) -> "CellTraining":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.tracker is not None:
            self.tracker.close("FINISHED" if kind is None else "FAILED")

    def run(self) -> Backbone:
        """Train to the end."""
        self.loop.run()
        return self.loop.finished_backbone().eval()

    def record(self, held_out: pl.DataFrame, cpu_seconds: float) -> pl.DataFrame:
        """Return the cell's row of `RECORD_SCHEMA`."""
        tokens = LayerTable.of_corpus(held_out, self.job.layout).num_tokens
        per_weight = tokens / held_out["num_values"].to_numpy()
        row = {
            "num_params": num_parameters(self.loop.backbone),
            "num_train_models": self.rows.height,
            "num_train_weights": int(self.rows["num_values"].sum()),
            "latents_per_weight": self.job.backbone.latent_size * float(np.median(per_weight)),
            "loss": self._final_loss(),
            "cpu_seconds": cpu_seconds,
        }
        return pl.DataFrame([row], schema=RECORD_SCHEMA)

    def log_summary(self, errors: pl.DataFrame) -> None:
        """Send what the compare view shows."""
        if self.tracker is None:
            return
        median = errors.filter(pl.col("relative_error").is_finite())["relative_error"].median()
        if isinstance(median, float):
            values = {"test/relative_error_median": median}
            self.tracker.metrics(self.job.training.num_steps, values)

    def _final_loss(self) -> float:
        losses = [
            point.values["train/loss_reconstruction"]
            for point in self.loop.history.points
            if "train/loss_reconstruction" in point.values
        ]
        return losses[-1] if losses else float("nan")
