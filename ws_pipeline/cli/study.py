"""`ws-pipeline study`: many variants of a recipe trained and measured alike, in one table."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ws_pipeline.cli.arguments import HomeOption, add_command, find_home
from ws_pipeline.cli.console import err, out
from ws_pipeline.cli.home import find_store, prepare_home

if TYPE_CHECKING:
    import polars as pl

    from ws_pipeline.studies.study import Cell, Study

CellsOption = Annotated[
    int | None,
    typer.Option(
        "--cells",
        min=0,
        help="Make at most so many cells now; 0 writes the table again. Default: all.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(rich_markup_mode="rich")
    add_command(
        group,
        ablation,
        "ws-pipeline study ablation               everything that is not there yet",
        "ws-pipeline study ablation --cells 10    ten cells more, and the table so far",
    )
    app.add_typer(group, name="study", help="Compare many trainings in one table.")


def ablation(cells: CellsOption = None, home: HomeOption = None) -> None:
    """Train the grid of our choices and the papers' on the current corpus.

    Layout x positions x normalisation x contrastive weight, and the default recipe beside the
    papers' own choice. An interrupted study goes on where it stopped; MLflow has a run for each
    cell.
    """
    from ws_pipeline.studies.ablation import ablation_study

    _run(lambda _: ablation_study(), cells, home)


def _run(
    plan: Callable[["pl.DataFrame"], "Study"], max_cells: int | None, home: Path | None
) -> None:
    """Plan a study over the home's corpus, make its cells, print its table."""
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs.resources import HomeResource, MlflowResource
    from ws_pipeline.storage.store import Store
    from ws_pipeline.studies.present import markdown
    from ws_pipeline.studies.run import read_corpus, run_study

    store = Store.open(find_store(folder))
    corpus = read_corpus(store)
    result = run_study(
        plan(corpus),
        home=folder,
        store=store,
        corpus=corpus,
        tracking_uri=MlflowResource(home=HomeResource(path=str(folder))).uri(),
        max_cells=max_cells,
        on_cell=_show_cell,
    )
    typer.echo(markdown(result.table))
    console = out()
    console.print(f"\nCells   {result.num_done} of {result.num_cells}, {result.num_made} made now")
    console.print(f"Tables  {result.folder}", markup=False)


def _show_cell(cell: "Cell", state: str, number: int, num_cells: int) -> None:
    if state == "made":
        text = f"{number}/{num_cells}  {cell.variant.name}, seed {cell.seed}"
        err().print(text, markup=False)
