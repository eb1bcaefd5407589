"""The commands that run assets: demo, refresh, train, evaluate, report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ws_pipeline.cli.arguments import (
    LINEAGE,
    EndpointOption,
    FamilyOption,
    HomeOption,
    ProcessesOption,
    RecipeOption,
    add_command,
    find_home,
)
from ws_pipeline.cli.completion import complete_recipes, complete_zoos
from ws_pipeline.cli.console import ConsoleReporter, out, print_table, wide
from ws_pipeline.cli.home import prepare_home
from ws_pipeline.defs.outcomes import StepOutcome
from ws_pipeline.errors import Reason, WsPipelineError
from ws_pipeline.settings import DEFAULT_RECIPE

if TYPE_CHECKING:
    import polars as pl

NOTHING_MEASURED = (
    "Nothing could be measured: too few models are held out, or none of them states what is asked "
    "for; the report has the reasons. Crawl more, then train and evaluate again."
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(
        app,
        demo,
        "ws-pipeline demo                  from nothing to a report; again: only what is new",
        "ws-pipeline --home /data demo     with everything under /data",
        panel=LINEAGE,
    )
    add_command(
        app,
        refresh,
        "ws-pipeline refresh                             the embedded hub, HOME/hub",
        "ws-pipeline refresh --train --recipe tiny       up to the evaluations",
        "ws-pipeline refresh --endpoint https://huggingface.co --family vit",
        panel=LINEAGE,
    )
    add_command(app, train, "ws-pipeline train --recipe tiny --processes 2", panel=LINEAGE)
    add_command(
        app,
        evaluate,
        "ws-pipeline evaluate                  every recipe that has a model",
        "ws-pipeline evaluate --recipe tiny    one of them",
        panel=LINEAGE,
    )
    add_command(app, report, "ws-pipeline report", panel=LINEAGE)


def demo(
    recipe: RecipeOption = DEFAULT_RECIPE,
    zoo: Annotated[
        str,
        typer.Option("--zoo", help="Name of the zoo to train.", autocompletion=complete_zoos),
    ] = "demo",
    home: HomeOption = None,
) -> None:
    """Train a zoo, serve it as a hub, and run the whole lineage over it up to the report.

    Needs no account and no network; a few minutes on two cores. On an existing home only what is
    stale runs.
    """
    check_recipes([recipe])
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs import operations
    from ws_pipeline.evaluation.terminal import render_results_table

    with ConsoleReporter() as reporter:
        result = operations.demo(folder, recipe_name=recipe, zoo_name=zoo, reporter=reporter)
    raise_failures(result.outcomes)
    wide().print(render_results_table(result.results, recipe=recipe))
    print_table(
        ["left out", "reason", "detail"],
        result.refused.select("repo_id", "reason", "detail").rows(),
    )
    console = out()
    console.print(f"\nProcessed  {result.num_processed} rows in {result.seconds:.0f} s")
    console.print(f"Report     {result.report}")
    console.print("Look       " + "\n           ".join(result.ui_commands))


def refresh(
    *,
    endpoint: EndpointOption = "",
    family: FamilyOption = [],  # noqa: B006 - typer copies it
    recipe: RecipeOption = DEFAULT_RECIPE,
    train: Annotated[
        bool, typer.Option("--train", help="Go on to the backbone and the evaluations.")
    ] = False,
    processes: ProcessesOption = 1,
    home: HomeOption = None,
) -> None:
    """Crawl a hub and run what is stale downstream of it, up to tokens."""
    check_recipes([recipe])
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs import operations

    with ConsoleReporter() as reporter:
        result = operations.refresh(
            folder,
            endpoint=endpoint,
            families=family,
            recipe_name=recipe,
            train=train,
            num_processes=processes,
            reporter=reporter,
        )
    raise_failures(result.outcomes)
    console = out()
    console.print(f"Processed  {result.num_processed} rows")
    console.print(f"Corpus     {result.num_models} models")
    if result.left_out:
        reasons = ", ".join(f"{number} {reason}" for reason, number in result.left_out.items())
        console.print(f"Left out   {reasons}; ws-pipeline hub ledger has each", markup=False)


def train(
    recipe: RecipeOption,
    processes: ProcessesOption = 1,
    home: HomeOption = None,
) -> None:
    """Train a backbone on the current corpus."""
    check_recipes([recipe])
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs import operations

    with ConsoleReporter() as reporter:
        result = operations.train(
            folder, recipe_name=recipe, num_processes=processes, reporter=reporter
        )
    raise_failures(result.outcomes)
    print_table(["metric", "value"], sorted(result.metrics.items()))
    console = out()
    console.print(f"Model   {result.model_dir}")
    console.print(f"MLflow  run {result.mlflow_run_id}")


def evaluate(
    recipe: Annotated[
        list[str],
        typer.Option(
            "--recipe",
            help="Name of a recipe; may be given several times.",
            autocompletion=complete_recipes,
        ),
    ] = [],  # noqa: B006 - typer copies it
    home: HomeOption = None,
) -> None:
    """Embed the corpus with trained backbones and evaluate what is stale."""
    check_recipes(recipe)
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs import operations
    from ws_pipeline.evaluation.terminal import render_results_table

    with ConsoleReporter() as reporter:
        result = operations.evaluate(folder, recipe_names=recipe, reporter=reporter)
    raise_failures(result.outcomes)
    for name in recipe or sorted(set(result.results["recipe"].to_list())):
        wide().print(render_results_table(result.results, recipe=name))
        if not has_numbers(result.results, name):
            out().print(NOTHING_MEASURED)
    out().print(f"Report  {result.report}")


def has_numbers(results: "pl.DataFrame", recipe: str) -> bool:
    """Whether anything of a recipe could be measured; a count of what could not does not count."""
    own = results.filter(
        (results["recipe"] == recipe) & ~results["metric"].str.starts_with("undefined")
    )
    return own["value"].null_count() < own.height


def report(home: HomeOption = None) -> None:
    """Write the HTML report again from the stored results."""
    folder = prepare_home(find_home(home))
    from ws_pipeline.defs import operations

    with ConsoleReporter() as reporter:
        path = operations.report(folder, reporter=reporter)
    out().print(f"Report  {path}")


def check_recipes(names: Sequence[str]) -> None:
    """Refuse a name that is no recipe, before anything else starts."""
    from ws_pipeline.recipes import recipe

    for name in names:
        recipe(name)


def raise_failures(outcomes: Sequence[StepOutcome]) -> None:
    """Fail when a step did.

    Raises:
        WsPipelineError: Names the first, with its reason, and how to see more.
    """
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not failed:
        return
    first = failed[0]
    name = first.asset + (f"[{first.partition}]" if first.partition else "")
    detail = first.detail or "no message"
    raise WsPipelineError(
        f"{len(failed)} of {len(outcomes)} steps failed, first {name}: {detail.rstrip('.')}. "
        "See the run's log with ws-pipeline ui, mend the cause and run the same command again.",
        reason=Reason(first.reason or Reason.INTERNAL),
    )
