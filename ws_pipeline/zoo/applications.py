"""What a trained zoo is good for, in one folder: parents, soups, averages, barriers. Does I/O.

::

    applications/parents-FAMILY.parquet       how often a fine-tune's parent is found, by search
    applications/soups-POPULATION.parquet     soups of a parent's fine-tunes beside their members
    applications/epochs-POPULATION.parquet    averages of the last kept epochs beside the last one
    applications/barriers-POPULATION.parquet  between two fine-tunes: of one parent, of two, aligned
    applications/*.png                        a figure of each

What a zoo has nothing for is left out: soups need two fine-tunes of one parent and shape, averages
need kept epochs. Soups, averages and barriers are of classifiers.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.application_figures import draw_epoch_averages, draw_recalls, draw_soups
from ws_pipeline.zoo.barrier_figure import draw_interpolations
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.index import REPOS_FOLDER, read_index, write_if_changed
from ws_pipeline.zoo.interpolation import Evaluator, Interpolation, interpolate_models
from ws_pipeline.zoo.parents import compare_searches
from ws_pipeline.zoo.soup_study import compare_epoch_averages, compare_soups, summarise_gain

APPLICATIONS_FOLDER = "applications"

GAINS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "soups": (
        ("uniform", "mean_member"),
        ("uniform", "best_member"),
        ("greedy", "best_member"),
    ),
    "epochs": (("average", "last"),),
}
"""What is compared with what, by table; the same parents or models on both sides."""

Study = Callable[[Path, str, LabelledDataset], pl.DataFrame]


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """One use of a zoo on one of its families or populations.

    Attributes:
        name: ``parents``, ``soups``, ``epochs`` or ``barriers``.
        group: The family or population.
        table: What came out.
        figure: Of matplotlib.
    """

    name: str
    group: str
    table: pl.DataFrame
    figure: Any


def study_applications(folder: Path, *, data: Path | None = None) -> Iterator[Application]:
    """Try a trained zoo's uses, one by one; those that it has nothing for are left out.

    Args:
        folder: The zoo's.
        data: Where data sets lie that do not ship with the dependencies.

    Raises:
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    finetunes = read_index(folder).filter(pl.col("is_final"), stage="finetune")
    for family in finetunes["family"].unique(maintain_order=True):
        table = compare_searches(folder, family)
        yield Application(name="parents", group=family, table=table, figure=draw_recalls(table))
    for population, dataset in (
        finetunes.select("population", "dataset").unique(maintain_order=True).iter_rows()
    ):
        labelled = load_dataset(dataset, data)
        if isinstance(labelled, LabelledDataset):
            yield from _study_population(folder, population, labelled)


def write_application(folder: Path, application: Application) -> Path:
    """Write an application's table and figure into the zoo's folder; the table's path."""
    target = folder / APPLICATIONS_FOLDER
    target.mkdir(exist_ok=True)
    stem = f"{application.name}-{application.group}"
    table, picture = io.BytesIO(), io.BytesIO()
    application.table.write_parquet(table)
    application.figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    write_if_changed(target / f"{stem}.parquet", table.getvalue())
    write_if_changed(target / f"{stem}.png", picture.getvalue())
    return target / f"{stem}.parquet"


def summarise_gains(application: Application) -> pl.DataFrame:
    """Return mean differences with their 95 % intervals: of, minus, gain, low, high.

    Soups are averaged over parents first, since the shapes of one parent are no independent draws.
    """
    table = application.table
    if application.name == "soups":
        table = table.group_by("parent", maintain_order=True).mean()
    rows = []
    for of, minus in GAINS.get(application.name, ()):
        gain = summarise_gain((table[of] - table[minus]).to_list())
        rows.append((of, minus, gain.mean, gain.low, gain.high))
    return pl.DataFrame(rows, schema=["of", "minus", "gain", "low", "high"], orient="row")


def _study_population(
    folder: Path, population: str, dataset: LabelledDataset
) -> Iterator[Application]:
    studies: tuple[tuple[str, Study, Callable[[pl.DataFrame], Any]], ...] = (
        ("soups", compare_soups, draw_soups),
        ("epochs", compare_epoch_averages, draw_epoch_averages),
    )
    for name, study, draw in studies:
        try:
            table = study(folder, population, dataset)
        except MissingInputError:
            continue
        yield Application(name=name, group=population, table=table, figure=draw(table))
    ways = cross_barriers(folder, population, dataset)
    if ways:
        yield Application(
            name="barriers",
            group=population,
            table=_tabulate_barriers(ways),
            figure=draw_interpolations(ways),
        )


def cross_barriers(
    folder: Path, population: str, dataset: LabelledDataset
) -> dict[str, Interpolation]:
    """Score what lies between a population's best fine-tune and its best relative and stranger.

    Returns:
        Ways by name; empty where no two models have one shape.
    """
    final = read_index(folder).filter(pl.col("is_final"), population=population)
    ranked = final.sort("val_accuracy", "name", descending=[True, False])
    best = ranked.row(0, named=True)
    others = ranked[1:].filter(num_params=best["num_params"])
    pairs = {
        "one parent": others.filter(pl.col("root") == best["root"]),
        "two parents": others.filter(pl.col("root") != best["root"]),
    }
    repos = folder / REPOS_FOLDER
    evaluator = Evaluator(repos / best["name"], best["family"], dataset)
    return {
        f"{name}, aligned" if align else name: interpolate_models(
            repos / best["name"], repos / found["name"][0], evaluator, align=align
        )
        for name, found in pairs.items()
        if found.height
        for align in (False, True)
    }


def _tabulate_barriers(ways: Mapping[str, Interpolation]) -> pl.DataFrame:
    rows = [(name, way.distance, way.barrier, way.accuracy_drop) for name, way in ways.items()]
    return pl.DataFrame(rows, schema=["way", "distance", "barrier", "accuracy_drop"], orient="row")
