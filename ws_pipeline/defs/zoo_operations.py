"""What the command line asks of zoos: one plain function per verb, as in ``operations``.

Training goes through Dagster, in this process; the other verbs read what it left. Importing this
module imports no Dagster and no torch.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ws_pipeline.defs.operations import raise_failed
from ws_pipeline.defs.outcomes import Reporter
from ws_pipeline.defs.results import ZooResult
from ws_pipeline.errors import MissingInputError, TrainingError

if TYPE_CHECKING:  # no Dagster definitions here
    from ws_pipeline.zoo.applications import Application


def train(
    home: Path, *, name: str, num_processes: int = 1, reporter: Reporter | None = None
) -> ZooResult:
    """Train a zoo (`zoo/models` and `zoo/diversity`); one that is complete is reused."""
    from ws_pipeline.defs.refresh import open_driver
    from ws_pipeline.zoo.catalog import zoo_config

    zoo_config(name)
    with open_driver(home, reporter=reporter) as driver:
        driver.make_zoo(name, num_processes=num_processes)
        raise_failed(driver.outcomes, TrainingError)
        folder = driver.home / "zoos" / name
        index = pl.read_parquet(folder / "index.parquet")
        made = [outcome for outcome in driver.outcomes if outcome.asset == "zoo/models"]
        return ZooResult(
            name=name,
            folder=folder,
            num_models=index.height,
            families=tuple(sorted(index["family"].unique())),
            num_published=sum(outcome.num_processed for outcome in made),
            outcomes=tuple(driver.outcomes),
        )


def publish(home: Path, *, name: str, owner: str = "") -> int:
    """Copy a trained zoo's changed repos and report into `home/hub`; how many changed.

    Args:
        home: WS_HOME.
        name: Of the zoo.
        owner: The zoo's own when empty.

    Raises:
        MissingInputError: If the zoo was not trained in this home.
    """
    from ws_pipeline.zoo.catalog import zoo_config
    from ws_pipeline.zoo.publish import publish_report
    from ws_pipeline.zoo.publish import publish_zoo as publish_repos

    folder = _trained_zoo(home, name)
    hub = folder.parents[1] / "hub"
    account = owner or zoo_config(name).owner
    num_published: int = publish_repos(folder, hub, account)
    return num_published + publish_report(folder, hub, account, name)


def push(home: Path, *, name: str, endpoint: str, owner: str) -> tuple[int, int]:
    """Push a trained zoo to an account on another hub, with the token of $HF_TOKEN.

    Returns:
        How many repos were pushed, and how many were there from an earlier push.

    Raises:
        MissingInputError: If the zoo was not trained in this home.
        RefusedError: If the hub does not let it write there.
    """
    from ws_pipeline.hub.connection import TOKEN_VARIABLE
    from ws_pipeline.zoo.push import push_zoo as push_repos

    folder = _trained_zoo(home, name)
    token = os.environ.get(TOKEN_VARIABLE) or None
    pushed = push_repos(folder, endpoint=endpoint, owner=owner, zoo=name, token=token)
    return pushed.num_pushed, pushed.num_there


def apply(home: Path, *, name: str) -> "Iterator[Application]":
    """Try what a trained zoo is good for, and write each table and figure as it is done.

    Raises:
        MissingInputError: If the zoo was not trained in this home.
    """
    from ws_pipeline.defs.resources import HomeResource
    from ws_pipeline.zoo.applications import study_applications, write_application

    folder = _trained_zoo(home, name)
    for application in study_applications(folder, data=HomeResource(path=str(home)).data_folder):
        write_application(folder, application)
        yield application


def _trained_zoo(home: Path, name: str) -> Path:
    """Return the folder of a zoo that is trained in a home."""
    from ws_pipeline.zoo.catalog import zoo_config

    zoo_config(name)
    folder = home.expanduser().absolute() / "zoos" / name
    if not (folder / "summary.json").is_file():
        raise MissingInputError(
            f"The zoo {name!r} is not trained under {home}: "
            f"run `ws-pipeline zoo train {name}` first."
        )
    return folder
