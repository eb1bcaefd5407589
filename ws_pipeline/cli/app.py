"""The command line's entry point: global options, and every error as one line and an exit code."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from ws_pipeline.cli import doctor, hub, lineage, services, study, weights, zoo
from ws_pipeline.cli.arguments import HomeOption, set_global_home, show_examples, unwrap
from ws_pipeline.cli.console import print_error
from ws_pipeline.errors import Reason, RefusedError, WsPipelineError
from ws_pipeline.settings import apply_file

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
COMPLETING = "_WS_PIPELINE_COMPLETE"
"""Set by a shell that asks for completions."""

app = typer.Typer(
    name="ws-pipeline",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=show_examples(
        "ws-pipeline demo                         from nothing to a report",
        "ws-pipeline ui                           Dagster and MLflow on loopback",
        "ws-pipeline hub serve FOLDER             your own models as a hub",
        "ws-pipeline refresh --endpoint URL       crawl a hub, tokenise what is new",
        "ws-pipeline inspect FILE --json          what is in a checkpoint",
        "ws-pipeline COMMAND --help               more examples",
    ),
)


def show_version(asked: bool) -> bool:
    """Answer --version, which needs no command."""
    if asked:
        from ws_pipeline import __version__

        typer.echo(f"ws-pipeline {__version__}")
        raise typer.Exit
    return asked


@app.callback(
    help=unwrap("""Turn a model hub into a data set of weights and a representation of models.

    Everything a run makes lies under one home folder. Exit codes: 0 done, 1 failed, 2 refused or
    misused; a refusal prints its reason code and one sentence on stderr.
    """),
)
def start(
    home: HomeOption = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=show_version),
    ] = False,
) -> None:
    """Take what stands before the command."""
    del version, debug  # debug is read in `run`, so that it may also stand behind the command
    set_global_home(home)


for part in (lineage, hub, weights, zoo, study, services, doctor):
    part.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code. Errors become one line on stderr.

    Args:
        arguments: Without the program's name. ``--debug`` anywhere lets tracebacks through.
    """
    stop = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:stop]
    given = [a for i, a in enumerate(arguments) if not (i < stop and a == "--debug")]
    try:
        with settings_in_force(given):
            code = app(given or ["--help"], prog_name="ws-pipeline", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return explain(error)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def settings_in_force(arguments: Sequence[str]) -> Iterator[None]:
    """Have the file of settings stand for variables that are not set, for the time of a block.

    A file that is refused stops commands, but neither their help nor a shell's completion.
    """
    new: tuple[str, ...] = ()
    try:
        new = apply_file()
    except RefusedError:
        if arguments and "--help" not in arguments and COMPLETING not in os.environ:
            raise
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def explain(error: Exception) -> int:
    """Print an exception as one line that says what to do; the exit code."""
    if isinstance(error, WsPipelineError):
        print_error(error.reason, str(error))
        return error.exit_code
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "ws-pipeline"
        sentence = " ".join(error.format_message().split())
        stop = "" if sentence.endswith((".", "?")) else "."
        print_error(Reason.MISUSE, f"{sentence}{stop} See {where} --help.")
        return 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        print_error(
            Reason.NO_SPACE,
            f"The disk is full ({error.filename or 'while writing'}). "
            "Free some space or point --home at a larger disk, then run again.",
        )
        return 1
    sentence = f"{type(error).__name__}: {error}".rstrip(".")
    print_error(Reason.INTERNAL, f"{sentence}. Run again with --debug for the traceback.")
    return 1
