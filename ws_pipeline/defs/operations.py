"""What the command line asks of Dagster: one plain function per verb.

Each function takes plain arguments, opens the persistent instance of the home, runs assets through
Dagster in this process, and hands back a frozen result. Nothing here prints except through the
`reporter` it is given, parses arguments or knows typer: that is `ws_pipeline.cli`. Which assets have to
run is decided in :mod:`ws_pipeline.defs.refresh`; the order of the demo in :mod:`ws_pipeline.defs.demo`.

Every function raises :class:`ws_pipeline.errors.WsPipelineError` with a reason, never a Dagster error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """What one asset (of one partition) did in one refresh.

    Attributes:
        asset: `hub/repos` and so on.
        partition: Family, recipe or zoo; "" for an asset without partitions.
        state: `done`, `unchanged` (nothing was stale, so it did not run) or `failed`.
        num_rows: Rows of the table (repos, models, results).
        num_processed: Rows that were worked on in this run.
        num_reused: Rows whose stored verdict was taken over.
        seconds: Wall time; 0 for an unchanged one.
        detail: The error in one sentence when it failed; a short remark otherwise.
    """

    asset: str
    partition: str = ""
    state: str
    num_rows: int = 0
    num_processed: int = 0
    num_reused: int = 0
    seconds: float = 0.0
    detail: str = ""


class Reporter(Protocol):
    """Where progress goes: the CLI's console, or nowhere."""

    def started(self, title: str) -> None:
        """A step that may take longer than a second begins."""

    def finished(self, outcome: StepOutcome) -> None:
        """A step ended."""


class SilentReporter:
    """A reporter that drops everything."""

    def started(self, title: str) -> None:
        """Drop it."""

    def finished(self, outcome: StepOutcome) -> None:
        """Drop it."""


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
        dry_run: Whether nothing was written.
    """

    families: tuple[str, ...]
    new_families: tuple[str, ...]
    repos: pl.DataFrame
    num_listed: int
    num_new: int
    num_changed: int
    dry_run: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RefreshResult:
    """A crawl and everything that was stale downstream of it."""

    outcomes: tuple[StepOutcome, ...]

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
    """A trained zoo; `num_published` counts repos that changed in the hub folder (0 if not published)."""

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


def scan(
    home: Path,
    *,
    endpoint: str = "",
    families: Sequence[str] = (),
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> ScanResult:
    """Crawl the hub once into the ledger (materialises `hub/repos` of each family).

    Args:
        home: WS_HOME.
        endpoint: Hub URL; "" serves `home/hub` for the time of the crawl.
        families: Which to crawl; empty means all that the hub lists.
        dry_run: Ask the hub and compare, write nothing (no ledger, no event).
    """
    raise NotImplementedError


def refresh(
    home: Path,
    *,
    endpoint: str = "",
    families: Sequence[str] = (),
    recipe_name: str = "tiny",
    train: bool = False,
    reporter: Reporter | None = None,
) -> RefreshResult:
    """Crawl, then run what is stale: up to `corpus/splits`, with `train` also backbone and evaluations."""
    raise NotImplementedError


def train(
    home: Path, *, recipe_name: str, num_processes: int = 1, reporter: Reporter | None = None
) -> TrainResult:
    """Train a recipe's backbone on the current corpus (materialises `backbone/model`)."""
    raise NotImplementedError


def evaluate(
    home: Path, *, recipe_names: Sequence[str] = (), reporter: Reporter | None = None
) -> EvaluateResult:
    """Embed and evaluate what is stale; `recipe_names` empty means every recipe that has a model."""
    raise NotImplementedError


def report(home: Path, *, reporter: Reporter | None = None) -> Path:
    """Write the leaderboard and the HTML report again from the stored results; the file's path."""
    raise NotImplementedError


def train_zoo(home: Path, *, name: str, reporter: Reporter | None = None) -> ZooResult:
    """Train a zoo (materialises `zoo/models` and `zoo/diversity`); one that is complete is reused."""
    raise NotImplementedError


def publish_zoo(home: Path, *, name: str, owner: str = "zoo") -> int:
    """Copy a trained zoo's changed repos into `home/hub/<owner>`; how many changed."""
    raise NotImplementedError


def demo(
    home: Path,
    *,
    recipe_name: str = "tiny",
    zoo_name: str = "demo",
    reporter: Reporter | None = None,
) -> DemoResult:
    """Zoo -> embedded hub -> whole lineage -> report, on a fresh or an existing home."""
    raise NotImplementedError
