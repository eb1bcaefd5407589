"""The bench: one corpus that the cells of a study are trained and measured on. Does I/O.

What it is: training in this process (``backbone.loop``), the error of every held-out layer, the
embedding of every model with a property to predict; three tables in the store for a cell, the
record last, so that a cell is there as a whole or not at all. What it is not: a summary
(``summary``), or the trainer of a recipe (``backbone.trainer``), which publishes a model.
"""

import dataclasses
import hashlib
import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ws_pipeline.backbone.config import EMBEDDING_VERSION
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.targets import read_card_truth
from ws_pipeline.recipes import to_dict
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.study import Cell, Population
from ws_pipeline.tokens.mixture import weigh_models

if TYPE_CHECKING:
    from ws_pipeline.backbone.model import Backbone

MEASUREMENT_VERSION = "1"
"""Raise it when the same cell would be measured otherwise: all cells are then made again."""

MAX_MODEL_PARAMS = 500_000
"""Models above this are not measured: a few of them would cost as much as a cell's training."""

TARGET = "accuracy"
"""The property whose probe stands in every study's table."""

CORPUS = "corpus/splits"


@dataclass(frozen=True, kw_only=True)
class CellTables:
    """What is kept of a finished cell.

    Attributes:
        record: One row of `RECORD_SCHEMA`.
        errors: As ``backbone.evaluate.reconstruct_models`` returns it, of the held-out models.
        embeddings: hub_id, embedding.
    """

    record: pl.DataFrame
    errors: pl.DataFrame
    embeddings: pl.DataFrame


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


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the cells of a study are made.

    Attributes:
        home: Training runs lie under ``studies/`` until their cell is measured.
        store: Shards, and the cells' tables.
        corpus: Rows of `corpus/splits`.
        study: Name of the MLflow experiment.
        tracking_uri: Of MLflow; empty for none.
        embed_all: See :class:`~ws_pipeline.studies.study.Study`.
    """

    home: Path
    store: Store
    corpus: pl.DataFrame
    study: str
    tracking_uri: str = ""
    embed_all: bool = False
    _snapshots: dict[Population, str] = field(default_factory=dict)

    @cached_property
    def held_out(self) -> pl.DataFrame:
        """The models whose reconstruction is measured."""
        small = pl.col("num_params") <= MAX_MODEL_PARAMS
        return self.corpus.filter((pl.col("split") == "test") & small)

    @cached_property
    def embedded(self) -> pl.DataFrame:
        """The models that are embedded."""
        if self.embed_all:
            return self.corpus.filter(pl.col("num_params") <= MAX_MODEL_PARAMS)
        truth = read_card_truth(self.corpus, (TARGET,)).targets.drop_nulls(TARGET)
        return self.corpus.join(truth, on="hub_id", how="semi", maintain_order="left")

    @cached_property
    def measured_digest(self) -> str:
        """What the measurement of a cell depends on beside its weights."""
        snapshot = self.store.snapshots.create(self.corpus)
        versions = f"{MEASUREMENT_VERSION} {EMBEDDING_VERSION}"
        text = f"{versions} {snapshot} {self.embed_all} {TARGET}"
        return hashlib.sha256(text.encode()).hexdigest()

    def training_rows(self, population: Population) -> pl.DataFrame:
        """Return the corpus rows of a population.

        Raises:
            MissingInputError: If there are none.
        """
        rows = population.choose(self.corpus.filter(pl.col("split") == "train"))
        if rows.is_empty():
            raise MissingInputError(
                f"A study trains on models of {', '.join(population.families) or 'any family'}, "
                "but the train split has none; crawl some and run ws-pipeline refresh."
            )
        return rows

    def snapshot(self, population: Population) -> str:
        """Return the digest of the corpus rows of a population, which are stored."""
        if population not in self._snapshots:
            rows = self.training_rows(population)
            self._snapshots[population] = self.store.snapshots.create(rows)
        return self._snapshots[population]

    def job(self, cell: Cell) -> TrainJob:
        """Return the training of a cell."""
        recipe, variant = cell.recipe, cell.variant
        job = TrainJob(
            recipe_name=variant.name,
            recipe_digest=recipe.digest(),
            recipe=to_dict(recipe),
            store_root=self.store.root,
            snapshot=self.snapshot(variant.population),
            backbone=recipe.backbone,
            loss=recipe.loss,
            views=recipe.views,
            training=recipe.training,
            layout=recipe.layout,
            mixture=recipe.mixture,
            out_dir="",
            mlflow_tracking_uri=self.tracking_uri,
            mlflow_experiment=self.study,
            tags={"study": self.study, "variant": variant.name, **variant.factors},
        )
        folder = self.home / "studies" / "runs" / job.digest()[:16]
        return dataclasses.replace(job, out_dir=str(folder))

    def key(self, job: TrainJob) -> str:
        """Return where a cell's tables lie in the store."""
        digest = hashlib.sha256(f"{job.digest()} {self.measured_digest}".encode()).hexdigest()
        return f"studies/cells/{digest[:16]}"

    def read(self, cell: Cell) -> CellTables | None:
        """Return a finished cell, None where it was not made yet."""
        key, tables = self.key(self.job(cell)), self.store.tables
        if not tables.exists(f"{key}/record"):
            return None
        names = [each.name for each in dataclasses.fields(CellTables)]
        return CellTables(**{name: tables.scan(f"{key}/{name}").collect() for name in names})

    def make(self, cell: Cell) -> CellTables:
        """Train and measure a cell and store its tables; an unfinished training goes on."""
        from ws_pipeline.backbone.embed import embed_models
        from ws_pipeline.backbone.evaluate import reconstruct_models

        began = time.process_time()
        job = self.job(cell)
        rows = self.training_rows(cell.variant.population)
        with _Training(self.store, job, rows) as training:
            backbone = training.run()
            errors = reconstruct_models(backbone, self.store, self.held_out)
            vectors = embed_models(backbone, self.store, self.embedded)
            record = training.record(self.held_out, time.process_time() - began)
            training.log_summary(errors)
        made = CellTables(
            record=record, errors=errors, embeddings=vectors.select("hub_id", "embedding")
        )
        key = self.key(job)
        for name in ("errors", "embeddings", "record"):  # the record is what makes it complete
            self.store.tables.write(f"{key}/{name}", getattr(made, name))
        shutil.rmtree(job.out_dir, ignore_errors=True)
        return made


class _Training:
    """One cell's training in this process, with its MLflow run; a context manager."""

    def __init__(self, store: Store, job: TrainJob, rows: pl.DataFrame) -> None:
        from accelerate import Accelerator

        from ws_pipeline.backbone.checkpoints import CheckpointFolder
        from ws_pipeline.backbone.loop import TrainingLoop
        from ws_pipeline.tokens.windows import WindowDataset

        self.job, self.rows = job, rows
        config = job.training
        folder = Path(job.out_dir)
        self.loop = TrainingLoop(
            job,
            accelerator=Accelerator(mixed_precision="no"),
            train=WindowDataset(
                store,
                rows.with_columns(weight=weigh_models(rows, job.mixture)),
                layout=job.layout,
                window_size=config.window_size,
                batch_size=config.batch_size,
                num_steps=config.num_steps,
                seed=config.seed,
            ),
            val=[],
            checkpoints=CheckpointFolder(out_dir=folder, job_digest=job.digest()),
        )
        self.tracker = None
        if job.mlflow_tracking_uri:
            from ws_pipeline.backbone.tracking import MlflowRun

            self.tracker = MlflowRun.open(job, tags={}, corpus=rows)
            self.tracker.replay(self.loop.history.points)
            self.loop.observers.append(self.tracker)

    def __enter__(self) -> "_Training":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.tracker is not None:
            self.tracker.close("FINISHED" if kind is None else "FAILED")

    def run(self) -> "Backbone":
        """Train to the end."""
        self.loop.run()
        return self.loop.finished_backbone().eval()

    def record(self, held_out: pl.DataFrame, cpu_seconds: float) -> pl.DataFrame:
        """Return the cell's row of `RECORD_SCHEMA`."""
        from ws_pipeline.backbone.model import num_parameters
        from ws_pipeline.tokens.layer_table import LayerTable

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
