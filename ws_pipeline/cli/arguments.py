"""The options that several commands share, and how the home is found. Reads the environment."""

import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

from ws_pipeline.cli.completion import complete_families, complete_recipes
from ws_pipeline.settings import HOME_VARIABLE, PROCESSES_VARIABLE, RECIPE_VARIABLE

DEFAULT_HOME = ".ws"

LINEAGE = "Lineage"
POPULATIONS = "Hubs and zoos"
CHECKPOINTS = "Checkpoints"
MACHINE = "This machine"
"""What commands are grouped by in the help."""


_GLOBAL_HOME: ContextVar[Path | None] = ContextVar("_GLOBAL_HOME", default=None)
"""The --home before the command. Not typer's context: its class is not the one it is typed as."""

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Folder that everything of a run lies under. Default: $WS_HOME, else ./.ws.",
        show_default=False,
    ),
]
EndpointOption = Annotated[
    str,
    typer.Option(
        "--endpoint",
        help="URL of a hub. Default: $WS_HUB_ENDPOINT, else the embedded hub over HOME/hub.",
        show_default=False,
    ),
]
FamilyOption = Annotated[
    list[str],
    typer.Option(
        "--family",
        help="Only this family; may be given several times.",
        autocompletion=complete_families,
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="Name of a recipe.",
        envvar=RECIPE_VARIABLE,
        autocompletion=complete_recipes,
    ),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        "--processes", min=1, help="Ranks to launch for a training.", envvar=PROCESSES_VARIABLE
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def set_global_home(home: Path | None) -> None:
    """Remember the option that stands before the command."""
    _GLOBAL_HOME.set(home)


def find_home(home: Path | None, *, options: bool = True) -> Path:
    """Return the home: the command's own option, the global one, $WS_HOME, or ``./.ws``."""
    option = (home or _GLOBAL_HOME.get()) if options else None
    stated = option or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME
    return Path(stated).expanduser().absolute()


def add_command(
    app: typer.Typer,
    command: Callable[..., None],
    *examples: str,
    name: str | None = None,
    panel: str | None = None,
) -> None:
    """Add a function as a command; its docstring is the help, the examples follow."""
    app.command(
        name,
        help=unwrap(command.__doc__ or ""),
        epilog=show_examples(*examples) if examples else None,
        rich_help_panel=panel,
    )(command)


def unwrap(text: str) -> str:
    """Return paragraphs as one line each, for the terminal to wrap."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def show_examples(*lines: str) -> str:
    """Return an epilog that keeps its lines; brackets are text, not markup."""
    text = "\n".join(lines).replace("[", "\\[")
    return f"[bold]Examples[/bold]\n\n{text}"
