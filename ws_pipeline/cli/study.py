"""`ws-pipeline study`: many variants of a recipe trained and measured alike, in one table."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ws_pipeline.cli.arguments import LINEAGE, HomeOption, add_command, find_home
from ws_pipeline.cli.console import err, out, print_table
from ws_pipeline.cli.home import find_store, prepare_home

if TYPE_CHECKING:
    import polars as pl

    from ws_pipeline.studies.run import StudyResult
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
OnlyOption = Annotated[
    str,
    typer.Option("--only", help="Make cells of variants whose name fits this glob."),
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
    add_command(group, composition, "ws-pipeline study composition")
    add_command(
        group,
        hub_against_zoo,
        "ws-pipeline study hub-against-zoo        needs a corpus with zoos and other models",
        name="hub-against-zoo",
    )
    app.add_typer(
        group, name="study", help="Compare many trainings in one table.", rich_help_panel=LINEAGE
    )


def ablation(cells: CellsOption = None, only: OnlyOption = "*", home: HomeOption = None) -> None:
    """Train the grid of our choices and the papers' on the current corpus.

    Layout x positions x normalisation x contrastive weight, and the default recipe beside the
    papers' own choice. An interrupted study goes on where it stopped; MLflow has a run for each
    cell.
    """
    from ws_pipeline.studies.ablation import ablation_study

    _run(lambda _: ablation_study(), cells, only, home)


def composition(cells: CellsOption = None, only: OnlyOption = "*", home: HomeOption = None) -> None:
    """Train on nested populations: more models, more families, the hub, hub and zoos.

    Does the diversity of what a backbone is trained on matter more than its size? Errors are taken
    on held-out models of what it was trained on, and of what it was not.
    """
    from ws_pipeline.studies.composition import composition_study

    _run(composition_study, cells, only, home)


def hub_against_zoo(
    cells: CellsOption = None, only: OnlyOption = "*", home: HomeOption = None
) -> None:
    """Train one backbone on the hub, one on the zoos, one on both, at the same budget.

    Then every evaluation: reconstruction, properties and relatives with all their controls.
    """
    import polars as pl

    from ws_pipeline.studies.hub_against_zoo import evaluate_cells, hub_against_zoo_study

    result = _run(hub_against_zoo_study, cells, only, home)
    found = evaluate_cells(result.bench, result.study)
    found.write_parquet(result.folder / "evaluations.parquet")
    shown = found.filter(
        (pl.col("slice") == "all") & ~pl.col("metric").str.ends_with("_difference")
    )
    columns = ("target", "features", "metric", "seed", "value", "low", "high", "num_models")
    print_table(columns, shown.select(columns).rows())


def _run(
    plan: Callable[["pl.DataFrame"], "Study"], max_cells: int | None, only: str, home: Path | None
) -> "StudyResult":
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
        only=only,
        on_cell=_show_cell,
    )
    typer.echo(markdown(result.table))
    console = out()
    console.print(f"\nCells   {result.num_done} of {result.num_cells}, {result.num_made} made now")
    console.print(f"Tables  {result.folder}", markup=False)
    return result


def _show_cell(cell: "Cell", state: str, number: int, num_cells: int) -> None:
    if state == "made":
        text = f"{number}/{num_cells}  {cell.variant.name}, seed {cell.seed}"
        err().print(text, markup=False)
