"""The bench: one corpus that the cells of a study are trained and measured on. Does I/O.

What it is: a training in this process (``training``), the error of every held-out layer, the
embedding of every model with a property to predict, weights generated for held-out models
(``zero_shot``); four tables in the store for a cell, the record last, so that a cell is there as a
whole or not at all. What it is not: a summary (``summary``), or the trainer of a recipe
(``backbone.trainer``), which publishes a model.
"""

import dataclasses
import hashlib
import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from ws_pipeline.backbone.config import EMBEDDING_VERSION
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.errors import MissingInputError
from ws_pipeline.evaluation.targets import read_card_truth
from ws_pipeline.recipes import to_dict
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.study import Cell, Population, name_datasets
from ws_pipeline.studies.zero_shot import ZeroShotCase, generate, read_cases

MEASUREMENT_VERSION = "2"
"""Raise it when the same cell would be measured otherwise: all cells are then made again."""

MAX_MODEL_PARAMS = 500_000
"""Models above this are not measured: a few of them would cost as much as a cell's training."""

TARGET = "accuracy"
"""The property whose probe stands in every study's table."""

CORPUS = "corpus/splits"
ZOOS = "zoos"


@dataclass(frozen=True, kw_only=True)
class CellTables:
    """What is kept of a finished cell.

    Attributes:
        record: One row of ``training.RECORD_SCHEMA``.
        errors: As ``backbone.evaluate.reconstruct_models`` returns it, of the held-out models.
        embeddings: hub_id, embedding.
        generated: ``zero_shot.GENERATED_SCHEMA``; no rows in a study that generates nothing.
    """

    record: pl.DataFrame
    errors: pl.DataFrame
    embeddings: pl.DataFrame
    generated: pl.DataFrame


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
        generates: Likewise.
    """

    home: Path
    store: Store
    corpus: pl.DataFrame
    study: str
    tracking_uri: str = ""
    embed_all: bool = False
    generates: bool = False
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
    def zero_shot(self) -> list[ZeroShotCase]:
        """What weights are generated for: held-out models of the zoos that the home has."""
        return read_cases(self.home / ZOOS, self.held_out) if self.generates else []

    @cached_property
    def measured_digest(self) -> str:
        """What the measurement of a cell depends on beside its weights."""
        snapshot = self.store.snapshots.create(self.corpus)
        versions = f"{MEASUREMENT_VERSION} {EMBEDDING_VERSION}"
        cases = [case.digest for case in self.zero_shot]
        text = f"{versions} {snapshot} {self.embed_all} {TARGET} {cases}"
        return hashlib.sha256(text.encode()).hexdigest()

    def training_rows(self, population: Population) -> pl.DataFrame:
        """Return the corpus rows of a population.

        Raises:
            MissingInputError: If there are none.
        """
        named = name_datasets(self.corpus.filter(pl.col("split") == "train"))
        rows = population.choose(named).drop("dataset")
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
        from ws_pipeline.studies.training import CellTraining

        began = time.process_time()
        job = self.job(cell)
        rows = self.training_rows(cell.variant.population)
        with CellTraining(self.store, job, rows) as training:
            backbone = training.run()
            errors = reconstruct_models(backbone, self.store, self.held_out)
            vectors = embed_models(backbone, self.store, self.embedded)
            generated = generate(backbone, self.zero_shot)
            record = training.record(self.held_out, time.process_time() - began)
            training.log_summary(errors)
        made = CellTables(
            record=record,
            errors=errors,
            embeddings=vectors.select("hub_id", "embedding"),
            generated=generated,
        )
        key = self.key(job)
        for name in ("errors", "embeddings", "generated", "record"):  # the record completes it
            self.store.tables.write(f"{key}/{name}", getattr(made, name))
        shutil.rmtree(job.out_dir, ignore_errors=True)
        return made
