"""The commands about zoos: populations trained on purpose."""

from typing import Annotated

import typer

from ws_pipeline.cli.arguments import POPULATIONS, HomeOption, add_command, find_home
from ws_pipeline.cli.completion import complete_zoos
from ws_pipeline.cli.console import ConsoleReporter, out, print_table
from ws_pipeline.cli.home import prepare_home
from ws_pipeline.cli.lineage import raise_failures
from ws_pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(rich_markup_mode="rich")
    add_command(
        group, train, "ws-pipeline zoo train demo", "ws-pipeline zoo train vit-paper --processes 8"
    )
    add_command(group, list_zoos, "ws-pipeline zoo list", name="list")
    add_command(
        group,
        publish,
        "ws-pipeline zoo publish demo --owner lab",
        "ws-pipeline zoo publish demo --owner lab --endpoint https://huggingface.co",
        "ws-pipeline refresh                         crawls what was published",
    )
    add_command(group, apply, "ws-pipeline zoo apply vit-digits")
    app.add_typer(
        group,
        name="zoo",
        help="Train populations with known generating factors.",
        rich_help_panel=POPULATIONS,
    )


ZooArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a zoo; ws-pipeline zoo list has them.", autocompletion=complete_zoos
    ),
]


def train(
    name: ZooArgument,
    *,
    num_processes: Annotated[
        int,
        typer.Option("--processes", min=1, help="Started by Accelerate, each on a GPU if any."),
    ] = 1,
    home: HomeOption = None,
) -> None:
    """Train a zoo, many models at a time; one that is complete is reused.

    A run that was stopped goes on where it was, with any number of processes, and the models are
    the same.
    """
    check_zoo(name)
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs import zoo_operations

    with ConsoleReporter() as reporter:
        result = zoo_operations.train(
            folder, name=name, num_processes=num_processes, reporter=reporter
        )
    raise_failures(result.outcomes)
    families = ", ".join(result.families)
    out().print(f"{result.num_models} models of {families} in {result.folder}", markup=False)


def list_zoos(home: HomeOption = None) -> None:
    """List the zoos there are, and which are trained in this home."""
    from ws_pipeline.zoo.catalog import ZOO_NAMES, zoo_config

    folder = find_home(home)
    rows = []
    for name in ZOO_NAMES:
        config = zoo_config(name)
        trained = (folder / "zoos" / name / "summary.json").is_file()
        rows.append((name, getattr(config, "description", ""), trained))
    print_table(["zoo", "what it is", "trained"], rows)


def publish(
    name: ZooArgument = "demo",
    owner: Annotated[
        str, typer.Option("--owner", help="Whose repos they become. Default: the zoo's.")
    ] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="Push to this hub instead, with $HF_TOKEN.")
    ] = "",
    home: HomeOption = None,
) -> None:
    """Publish a trained zoo: its repos, and its index and report as a data-set repo.

    Into the embedded hub, HOME/hub, or to an account on the hub of --endpoint; what did not change
    stays, and a push that was stopped goes on where it was.
    """
    check_zoo(name)
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs import zoo_operations

    if not endpoint:
        changed = zoo_operations.publish(folder, name=name, owner=owner)
        out().print(f"{changed} repos changed in {folder / 'hub'}", markup=False)
        return
    if not owner:
        raise ConfigError("--endpoint needs --owner: the account or organisation to push to.")
    pushed, there = zoo_operations.push(folder, name=name, endpoint=endpoint, owner=owner)
    out().print(f"{pushed} repos pushed to {endpoint}, {there} were there", markup=False)


def apply(name: ZooArgument, home: HomeOption = None) -> None:
    """Show what a trained zoo is good for: parents of fine-tunes, soups, averages, barriers.

    Tables and figures lie in HOME/zoos/NAME/applications; differences have 95 % intervals.
    """
    check_zoo(name)
    folder = find_home(home)
    from ws_pipeline.defs import zoo_operations
    from ws_pipeline.zoo.applications import GAINS, summarise_gains

    for application in zoo_operations.apply(folder, name=name):
        is_compared = application.name in GAINS
        table = summarise_gains(application) if is_compared else application.table
        of = f", {application.table.height} rows" if is_compared else ""
        out().print(f"\n{application.name} of {application.group}{of}", markup=False)
        print_table(table.columns, table.rows())
    out().print(f"Tables and figures: {folder / 'zoos' / name / 'applications'}", markup=False)


def check_zoo(name: str) -> None:
    """Refuse a name that is no zoo, before anything else starts."""
    from ws_pipeline.zoo.catalog import zoo_config

    zoo_config(name)
