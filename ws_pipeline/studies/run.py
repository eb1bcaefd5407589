"""Running a study: every cell that is not there yet, then table and figure. Does I/O.

A study that was interrupted goes on at the next cell. One process works at a study of a home.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl
from filelock import FileLock, Timeout

from ws_pipeline.errors import MissingInputError, Reason, RefusedError
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.bench import CORPUS, Bench, CellTables
from ws_pipeline.studies.present import study_table, write_study
from ws_pipeline.studies.study import Cell, Study
from ws_pipeline.studies.summary import summarize_study

OnCell = Callable[[Cell, str, int, int], None]
"""Told of a cell, what is done with it (`kept`, `made`), which it is and of how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """What is known of a study so far.

    Attributes:
        study: What was asked.
        bench: Reads its cells.
        results: Its numbers (RESULT_SCHEMA).
        table: One row per variant, for people.
        folder: Holds the table as Markdown and Parquet, and the figure as SVG.
        num_cells: Of the whole study.
        num_done: Of them, those that are there.
        num_made: Of them, those that were made now.
    """

    study: Study
    bench: Bench
    results: pl.DataFrame
    table: pl.DataFrame
    folder: Path
    num_cells: int
    num_done: int
    num_made: int


def read_corpus(store: Store) -> pl.DataFrame:
    """Return `corpus/splits`.

    Raises:
        MissingInputError: If nothing was ever split.
    """
    if not store.tables.exists(CORPUS):
        raise MissingInputError(
            "A study needs a corpus, and this home has none; run ws-pipeline demo or "
            "ws-pipeline refresh first."
        )
    return store.tables.scan(CORPUS).collect()


def run_study(
    study: Study,
    *,
    home: Path,
    store: Store,
    corpus: pl.DataFrame,
    tracking_uri: str = "",
    max_cells: int | None = None,
    only: str = "*",
    on_cell: OnCell = lambda *_: None,
) -> StudyResult:
    """Make the cells that are missing, and write what is known then.

    Args:
        study: What is asked.
        home: Table and figure go to ``studies/<name>/`` in it.
        store: Shards and cells.
        corpus: Rows of `corpus/splits`.
        tracking_uri: Of MLflow; empty for none.
        max_cells: Make at most so many; None for all, 0 to write the table again.
        only: Make cells of variants whose name fits this glob; all that are there are shown.
        on_cell: See `OnCell`.

    Raises:
        RefusedError: ``conflict``, if another process works at the study.
    """
    bench = Bench(
        home=home,
        store=store,
        corpus=corpus,
        study=study.name,
        tracking_uri=tracking_uri,
        embed_all=study.embed_all,
        generates=study.generates,
    )
    folder = home / "studies" / study.name
    folder.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        done: dict[str, list[CellTables]] = {}
        made = 0
        cells = list(study.cells())
        for number, cell in enumerate(cells, start=1):
            tables = bench.read(cell)
            state = "kept"
            fits = fnmatchcase(cell.variant.name, only)
            wanted = fits and (max_cells is None or made < max_cells)
            if tables is None and wanted:
                tables, state, made = bench.make(cell), "made", made + 1
            if tables is not None:
                done.setdefault(cell.variant.name, []).append(tables)
                on_cell(cell, state, number, len(cells))
        results = summarize_study(study, corpus, done)
        table = study_table(study, results, done)
        write_study(folder, study, results, table)
    return StudyResult(
        study=study,
        bench=bench,
        results=results,
        table=table,
        folder=folder,
        num_cells=len(cells),
        num_done=sum(map(len, done.values())),
        num_made=made,
    )


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "study.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RefusedError(
            f"Another process works at the study in {folder}; wait until it has ended.",
            reason=Reason.CONFLICT,
        ) from error
    try:
        yield
    finally:
        lock.release()
