"""What each verb of the command line comes to. Frozen values; no I/O, no Dagster."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ws_pipeline.defs.outcomes import StepOutcome


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanResult:
    """One incremental crawl.

    Attributes:
        families: Those that were crawled, sorted.
        new_families: Those seen for the first time.
        repos: One row per repo: family, repo_id, revision, status, reason, detail, change
            (`new`, `changed`, `gone` or "").
        num_listed: Repos that the hub listed.
        num_new: Repos that the ledger had not seen.
        num_changed: Repos with another revision than the ledger's.
        num_gone: Repos of the ledger that the hub does not list any more.
        forecast: Of a dry run: what a refresh would fetch (`hub.forecast.FORECAST_SCHEMA`); None
            where the crawl was real.
    """

    families: tuple[str, ...]
    new_families: tuple[str, ...]
    repos: pl.DataFrame
    num_listed: int
    num_new: int
    num_changed: int
    num_gone: int
    forecast: pl.DataFrame | None = None

    @property
    def dry_run(self) -> bool:
        """Whether nothing was written."""
        return self.forecast is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefreshResult:
    """A crawl and everything that was stale downstream of it.

    Attributes:
        num_models: Of the corpus that there is now.
        left_out: How many repos of the home are not in it, by reason.
    """

    outcomes: tuple[StepOutcome, ...]
    num_models: int
    left_out: Mapping[str, int]

    @property
    def num_processed(self) -> int:
        """Rows worked on downstream of the crawl; 0 means that nothing was re-processed."""
        return sum(o.num_processed for o in self.outcomes if o.asset != "hub/repos")

    @property
    def failed(self) -> tuple[StepOutcome, ...]:
        """The steps that failed."""
        return tuple(o for o in self.outcomes if o.state == "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """A backbone that was trained, or that was there already.

    Attributes:
        model_dir: Folder that `Backbone.from_pretrained` loads.
        metrics: Final losses and throughput.
        mlflow_run_id: The run in the home's MLflow store.
    """

    recipe: str
    model_dir: Path
    metrics: dict[str, float]
    mlflow_run_id: str
    outcomes: tuple[StepOutcome, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateResult:
    """Result rows (evaluation's RESULT_SCHEMA) of the recipes asked for, and the report."""

    results: pl.DataFrame
    report: Path
    outcomes: tuple[StepOutcome, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooResult:
    """A trained zoo; `num_published` counts repos that changed in the hub folder."""

    name: str
    folder: Path
    num_models: int
    families: tuple[str, ...]
    num_published: int
    outcomes: tuple[StepOutcome, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """The whole lineage, once.

    Attributes:
        results: The leaderboard's rows.
        refused: One row per repo that did not go through: repo_id, status, reason, detail.
        num_processed: Rows worked on downstream of the crawl; 0 on an unchanged second run.
        ui_commands: Lines to paste into a shell that serve Dagster and MLflow on this home.
    """

    results: pl.DataFrame
    refused: pl.DataFrame
    report: Path
    outcomes: tuple[StepOutcome, ...]
    num_processed: int
    seconds: float
    ui_commands: tuple[str, ...]
