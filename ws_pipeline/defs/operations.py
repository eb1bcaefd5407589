"""What the command line asks of Dagster: one plain function per verb.

Each function takes plain arguments, opens the persistent instance of the home, runs assets through
Dagster in this process, and hands back a frozen result. Nothing here prints except through the
`reporter` it is given, parses arguments or knows typer: that is `ws_pipeline.cli`. Which assets
have to run is decided in :mod:`ws_pipeline.defs.refresh`; the order of the demo in
:mod:`ws_pipeline.defs.demo`; zoos have verbs of their own (:mod:`ws_pipeline.defs.zoo_operations`).

Errors are :class:`ws_pipeline.errors.WsPipelineError` with a reason, never Dagster's. A family that
fails does not stop the others: it is an outcome with state `failed`. Importing this module imports
no Dagster, so `--help` stays quick.
"""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ws_pipeline.defs.outcomes import Reporter, SilentReporter, StepOutcome
from ws_pipeline.defs.results import (
    DemoResult,
    EvaluateResult,
    RefreshResult,
    ScanResult,
    TrainResult,
)
from ws_pipeline.defs.runs import find_model
from ws_pipeline.errors import HubError, MissingInputError, Reason, TrainingError, WsPipelineError
from ws_pipeline.recipes import DEFAULT_RECIPE, recipe

__all__ = [
    "DemoResult", "EvaluateResult", "RefreshResult", "Reporter", "ScanResult", "SilentReporter",
    "StepOutcome", "TrainResult",
    "demo", "evaluate", "find_model", "refresh", "report", "scan", "train", "ui_commands",
]  # fmt: skip


def scan(
    home: Path,
    *,
    endpoint: str = "",
    families: Sequence[str] = (),
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> ScanResult:
    """Crawl the hub once into the ledger (materialises `hub/repos` of what changed).

    Args:
        home: WS_HOME.
        endpoint: Hub URL; "" serves `home/hub` for the time of the crawl.
        families: Which to crawl, each listed by itself; empty scans the whole hub.
        dry_run: Ask the hub and compare, write nothing (no ledger, no event), and say what a
            refresh would fetch.
        reporter: Where progress goes.

    Raises:
        HubError: If a family's listing could not be had.
        MissingInputError: If a family that was named has no repos and never had.
    """
    from ws_pipeline.defs.refresh import open_driver
    from ws_pipeline.defs.scan import compare_ledgers, look_at_hub, read_ledger, require_families

    home = home.expanduser().absolute()
    before = read_ledger(home)
    forecast = None
    if dry_run:
        look = look_at_hub(home, endpoint=endpoint, families=families, now=datetime.now(UTC))
        after, forecast = look.ledger, look.forecast
        require_families(families, {**before, **after})
    else:
        with open_driver(home, endpoint=endpoint, reporter=reporter) as driver:
            crawled = driver.crawl(families)
            raise_failed(driver.outcomes, HubError)
            if families:  # a hub without any repo is a finding, not a mistake
                driver.require_repos(families)
        now = read_ledger(home)
        after = {name: now[name] for name in crawled}
    repos = compare_ledgers(before, after)
    changes = repos["change"].to_list()
    return ScanResult(
        families=tuple(sorted(after)),
        new_families=tuple(sorted(set(after) - set(before))),
        repos=repos,
        num_listed=repos.filter(pl.col("status") != "deleted").height,
        num_new=changes.count("new"),
        num_changed=changes.count("changed"),
        num_gone=changes.count("gone"),
        forecast=forecast,
    )


def refresh(
    home: Path,
    *,
    endpoint: str = "",
    families: Sequence[str] = (),
    recipe_name: str = DEFAULT_RECIPE,
    train: bool = False,
    num_processes: int = 1,
    reporter: Reporter | None = None,
) -> RefreshResult:
    """Crawl, then run what is stale: up to `corpus/splits`, with `train` also what follows.

    Args:
        home: WS_HOME.
        endpoint: Hub URL; "" serves `home/hub` meanwhile.
        families: Which to look at; empty means all.
        recipe_name: Whose selection and split policies count, and whose backbone is trained.
        train: Go on to the backbone (again, if the corpus changed), evaluations and report.
        num_processes: Of the training.
        reporter: Where progress goes.

    Raises:
        MissingInputError: If the hub, or a family that was named, has no repos and never had.
    """
    from ws_pipeline.defs.refresh import open_driver

    recipe(recipe_name)
    with open_driver(home, endpoint=endpoint, policy=recipe_name, reporter=reporter) as driver:
        crawled = driver.crawl(families)
        driver.require_repos(families)
        driver.refresh_families(crawled)
        done = driver.refresh_corpus()
        if (
            train
            and done
            and driver.refresh_model(recipe_name, again=True, num_processes=num_processes)
        ):
            driver.refresh_recipe(recipe_name)
            driver.refresh_leaderboard()
        return RefreshResult(
            outcomes=tuple(driver.outcomes),
            num_models=driver.corpus().height,
            left_out=driver.left_out(),
        )


def train(
    home: Path, *, recipe_name: str, num_processes: int = 1, reporter: Reporter | None = None
) -> TrainResult:
    """Train a recipe's backbone on the current corpus (materialises `backbone/model`).

    A model of the same recipe on the same corpus is there already: then nothing is trained.

    Raises:
        MissingInputError: If there is no corpus yet.
        TrainingError: If the training ended without a model.
    """
    from ws_pipeline.defs.refresh import open_driver

    recipe(recipe_name)
    with open_driver(home, policy=recipe_name, reporter=reporter) as driver:
        if not driver.has_corpus():
            raise MissingInputError(
                f"There is no corpus under {home}: run `ws-pipeline refresh` first."
            )
        driver.require_models()
        driver.refresh_model(recipe_name, again=True, num_processes=num_processes)
        raise_failed(driver.outcomes, TrainingError)
        metadata = driver.model_metadata(recipe_name)
        return TrainResult(
            recipe=recipe_name,
            model_dir=find_model(driver.home, recipe_name),
            metrics={k: float(v) for k, v in metadata.items() if isinstance(v, int | float)},
            mlflow_run_id=str(metadata.get("mlflow_run_id", "")),
            outcomes=tuple(driver.outcomes),
        )


def evaluate(
    home: Path, *, recipe_names: Sequence[str] = (), reporter: Reporter | None = None
) -> EvaluateResult:
    """Embed and evaluate what is stale; `recipe_names` empty means every recipe that has a model.

    Raises:
        MissingInputError: If there is no trained model.
    """
    from ws_pipeline.defs.refresh import open_driver

    names = [recipe(name).name for name in recipe_names]
    with open_driver(home, reporter=reporter) as driver:
        for name in names or driver.trained_recipes():
            find_model(driver.home, name)
            driver.refresh_recipe(name)
        raise_failed(driver.outcomes, WsPipelineError)
        driver.refresh_leaderboard()
        raise_failed(driver.outcomes, WsPipelineError)
        return EvaluateResult(
            results=driver.results(),
            report=driver.report_path,
            outcomes=tuple(driver.outcomes),
        )


def report(home: Path, *, reporter: Reporter | None = None) -> Path:
    """Write the leaderboard and the HTML report again from the stored results; the file's path.

    Raises:
        MissingInputError: If nothing was evaluated yet.
    """
    from ws_pipeline.defs.refresh import open_driver

    with open_driver(home, reporter=reporter) as driver:
        if not driver.evaluated_recipes():
            raise MissingInputError(
                f"There are no results under {home}: run `ws-pipeline evaluate` first."
            )
        driver.refresh_leaderboard(again=True)
        raise_failed(driver.outcomes, WsPipelineError)
        return driver.report_path


def demo(
    home: Path,
    *,
    recipe_name: str = DEFAULT_RECIPE,
    zoo_name: str = "demo",
    reporter: Reporter | None = None,
) -> DemoResult:
    """Zoo -> embedded hub -> whole lineage -> report, on a fresh or an existing home."""
    from ws_pipeline.defs.demo import run_demo

    recipe(recipe_name)
    return run_demo(home, recipe_name=recipe_name, zoo_name=zoo_name, reporter=reporter)


def ui_commands(home: Path) -> tuple[str, ...]:
    """Lines for a shell that serve the Dagster and MLflow UIs on what a home holds."""
    home = home.expanduser().absolute()
    return (f"ws-pipeline --home {shlex.quote(str(home))} ui",)


def raise_failed(outcomes: Sequence[StepOutcome], kind: type[WsPipelineError]) -> None:
    """Raise the first failure as one sentence."""
    for outcome in outcomes:
        if outcome.state == "failed":
            where = f"{outcome.asset}[{outcome.partition}]" if outcome.partition else outcome.asset
            raise kind(f"{where}: {outcome.detail}", reason=Reason(outcome.reason))
