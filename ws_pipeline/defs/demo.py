"""The demo: from nothing to a first honest result, or from there to the same result again.

Belongs here: the order of its steps. Does not: anything that only the demo does differently: every
step is the one that a user's own hub goes through, and no branch asks for a family's name.
"""

import time
from pathlib import Path

import polars as pl

from ws_pipeline.defs.left_out import refused_repos
from ws_pipeline.defs.operations import DemoResult, raise_failed, ui_commands
from ws_pipeline.defs.outcomes import Reporter
from ws_pipeline.defs.refresh import Driver, open_driver
from ws_pipeline.errors import WsPipelineError
from ws_pipeline.zoo.catalog import zoo_config
from ws_pipeline.zoo.oddities import write_oddities


def run_demo(
    home: Path, *, recipe_name: str, zoo_name: str, reporter: Reporter | None = None
) -> DemoResult:
    """Zoo, hub with its odd repos, crawl to tokens, corpus, backbone, evaluations, report.

    Raises:
        WsPipelineError: The first step that failed, in one sentence.
    """
    started = time.monotonic()
    with open_driver(home, policy=recipe_name, reporter=reporter) as driver:
        _step(driver, driver.make_zoo(zoo_name))
        add_oddities(driver.home, zoo_name)
        driver.refresh_families(driver.crawl())
        _step(driver, driver.refresh_corpus())
        _step(driver, driver.refresh_model(recipe_name, again=False))
        _step(driver, driver.refresh_recipe(recipe_name))
        _step(driver, driver.refresh_leaderboard())
        return DemoResult(
            results=driver.results(),
            refused=refused_repos(driver.ledger),
            report=driver.report_path,
            outcomes=tuple(driver.outcomes),
            num_processed=sum(o.num_processed for o in driver.outcomes if o.asset != "hub/repos"),
            seconds=time.monotonic() - started,
            ui_commands=ui_commands(driver.home),
        )


def add_oddities(home: Path, zoo_name: str) -> list[str]:
    """Put the broken, closed and pickled repos into the embedded hub, made from a healthy one."""
    index = pl.read_parquet(home / "zoos" / zoo_name / "index.parquet")
    name = index.filter(pl.col("status") == "trained")["name"].min()
    return write_oddities(home / "hub", home / "hub" / zoo_config(zoo_name).owner / str(name))


def _step(driver: Driver, done: bool) -> None:
    """Stop at the first step that failed: what follows would only fail again."""
    if not done:
        raise_failed(driver.outcomes, WsPipelineError)
