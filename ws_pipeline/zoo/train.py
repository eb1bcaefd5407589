"""Train a zoo into a folder: repos, predictions, one index. Resumable population by population.

::

    repos/<name>/             config.json, model.safetensors, README.md
    predictions/<population>.safetensors   name -> predicted test labels, uint8
    populations/<population>-<digest>.parquet   rows of a finished population, written last
    index.parquet             all rows
    summary.json              written last: the zoo is complete
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree

import polars as pl
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from ws_pipeline.progress import hides_bars
from ws_pipeline.zoo.config import FORMAT_VERSION, GridConfig, ZooConfig, digest_of
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.grid import ModelPlan, plan_zoo
from ws_pipeline.zoo.index import (
    INDEX_FILE,
    INDEX_SCHEMA,
    POPULATIONS_FOLDER,
    PREDICTIONS_FOLDER,
    REPOS_FOLDER,
    SUMMARY_FILE,
    read_index,
    repos_are_there,
    write_if_changed,
)
from ws_pipeline.zoo.repos import RepoWriter, read_state
from ws_pipeline.zoo.stack import State
from ws_pipeline.zoo.training import Progress, TrainedModel, train_stack

MAX_STACK_MODELS = 64
"""Most models of one stack. More gain nothing: from 16 on the time per model is flat on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooSummary:
    """What a zoo came to.

    Args:
        num_models: Published repos, checkpoints included.
        num_trained: Models that were trained to the end.
        num_diverged: Models that were not.
        families: Repos per architecture.
        seconds: Wall time of each population's training.
        reused: Whether the folder was complete already.
    """

    name: str
    digest: str
    folder: str
    num_models: int
    num_trained: int
    num_diverged: int
    num_params: int
    families: Mapping[str, int]
    seconds: Mapping[str, float]
    reused: bool


def train_zoo(
    config: ZooConfig,
    folder: Path,
    *,
    data: Path | None = None,
    num_workers: int = 2,
    show_progress: bool | None = None,
) -> ZooSummary:
    """Train a zoo, or take up where an earlier run was stopped.

    Each worker is a thread that trains whole populations with one torch thread: no barriers between
    cores inside an operation, and results that do not depend on the number of cores.

    Args:
        config: The zoo.
        folder: Where it goes; made when it is not there.
        data: Where data sets lie that do not ship with the dependencies.
        num_workers: Threads that train at the same time.
        show_progress: Whether to draw a bar; None draws it on a terminal only.
    """
    found = read_summary(folder, config)
    if found is not None and repos_are_there(folder, read_index(folder)):
        return found
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    plans = plan_zoo(config)
    (folder / POPULATIONS_FOLDER).mkdir(parents=True, exist_ok=True)
    total = sum(plan.num_epochs for population in plans.values() for plan in population)
    seconds: dict[str, float] = {}
    hide = hides_bars() if show_progress is None else not show_progress
    stop = threading.Event()
    with tqdm(total=total, desc=f"zoo {config.name}", unit="model-epoch", disable=hide) as bar:

        def advance(num_epochs: int) -> None:
            if stop.is_set():
                raise CancelledError
            bar.update(num_epochs)

        def train(grid: GridConfig) -> pl.DataFrame:
            start = time.perf_counter()
            dataset = load_dataset(grid.dataset, data)
            rows = _train_population(config, plans[grid.name], dataset, folder, advance)
            seconds[grid.name] = round(time.perf_counter() - start, 2)
            return rows

        with _one_torch_thread():
            tables = _run_in_order(config.populations, train, num_workers, stop)
    index = pl.concat([tables[grid.name] for grid in config.populations])
    index.write_parquet(folder / f"{INDEX_FILE}.part")
    (folder / f"{INDEX_FILE}.part").replace(folder / INDEX_FILE)
    _remove_strangers(folder, config, plans, index)
    summary = _summarize(config, folder, index, seconds)
    write_if_changed(folder / SUMMARY_FILE, (json.dumps(asdict(summary), indent=2) + "\n").encode())
    return summary


def read_summary(folder: Path, config: ZooConfig | None = None) -> ZooSummary | None:
    """Read a finished zoo's summary; None when there is none, or it is of another config."""
    path = folder / SUMMARY_FILE
    if not path.is_file() or not (folder / INDEX_FILE).is_file():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    if config is not None and stored["digest"] != config.digest:
        return None
    return ZooSummary(**{**stored, "folder": str(folder), "reused": True})


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_in_order(
    grids: Sequence[GridConfig],
    train: Callable[[GridConfig], pl.DataFrame],
    num_workers: int,
    stop: threading.Event,
) -> dict[str, pl.DataFrame]:
    """Run populations side by side, each after its parent population.

    When one fails, or the user interrupts, the others stop after the epoch they are in.
    """
    tables: dict[str, pl.DataFrame] = {}
    waiting = list(grids)
    running: dict[Future[pl.DataFrame], str] = {}
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            while waiting or running:
                ready = [g for g in waiting if g.parent is None or g.parent.population in tables]
                for grid in ready:
                    running[pool.submit(train, grid)] = grid.name
                    waiting.remove(grid)
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    tables[running.pop(done)] = done.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tables


def _population_digest(config: ZooConfig, plans: Sequence[ModelPlan]) -> str:
    models = [[plan.model_id, plan.keep_epochs, plan.varied, plan.eval_rows] for plan in plans]
    return digest_of([FORMAT_VERSION, config.name, config.owner, config.licence, models])


def _train_population(
    config: ZooConfig,
    plans: Sequence[ModelPlan],
    dataset: Dataset,
    folder: Path,
    progress: Progress,
) -> pl.DataFrame:
    name = plans[0].population
    digest = _population_digest(config, plans)[:12]
    record = folder / POPULATIONS_FOLDER / f"{name}-{digest}.parquet"
    if record.is_file():
        table = pl.read_parquet(record)
        if repos_are_there(folder, table):
            progress(sum(plan.num_epochs for plan in plans))
            return table
    rows: list[dict[str, object]] = []
    predictions: dict[str, Tensor] = {}
    for stack in _stacks_of(plans):
        trained = _train_one_stack(stack, dataset, folder, progress)
        writer = RepoWriter(config, stack[0], dataset, folder)
        for model in trained:
            rows += writer.write_model(model, predictions)
    (folder / PREDICTIONS_FOLDER).mkdir(exist_ok=True)
    write_if_changed(folder / PREDICTIONS_FOLDER / f"{name}.safetensors", save(predictions))
    table = pl.DataFrame(rows, schema=dict(INDEX_SCHEMA))
    part = record.with_name(f".{record.name}.{os.getpid()}-{threading.get_ident()}")
    table.write_parquet(part)
    part.replace(record)
    return table


def _stacks_of(plans: Sequence[ModelPlan]) -> list[list[ModelPlan]]:
    """Group plans whose models can train in one stack: all that share their sizes."""
    shapes: dict[str, list[ModelPlan]] = {}
    for plan in plans:
        shapes.setdefault(digest_of(dict(plan.sizes)), []).append(plan)
    return [
        members[start : start + MAX_STACK_MODELS]
        for members in shapes.values()
        for start in range(0, len(members), MAX_STACK_MODELS)
    ]


def _train_one_stack(
    plans: Sequence[ModelPlan], dataset: Dataset, folder: Path, progress: Progress
) -> list[TrainedModel]:
    """Train the plans whose parents came through; the others come back without a checkpoint."""
    parents: dict[str, State] = {}
    for plan in plans:
        if plan.parent is not None and plan.parent.model_id not in parents:
            repo = folder / REPOS_FOLDER / plan.parent.name
            if repo.is_dir():
                parents[plan.parent.model_id] = read_state(plan.parent, dataset, repo)
    able = [plan for plan in plans if plan.parent is None or plan.parent.model_id in parents]
    trained = train_stack(able, dataset, parents=parents, progress=progress) if able else []
    results = {model.plan.model_id: model for model in trained}
    return [results.get(plan.model_id, TrainedModel(plan=plan)) for plan in plans]


def _remove_strangers(
    folder: Path, config: ZooConfig, plans: Mapping[str, list[ModelPlan]], index: pl.DataFrame
) -> None:
    """Delete what an earlier config left: this folder is one zoo."""
    repos = folder / REPOS_FOLDER
    kept = set(index.filter(pl.col("status") == "trained")["name"])
    for repo in repos.iterdir() if repos.is_dir() else ():
        if repo.name not in kept:
            rmtree(repo)
    records = {f"{name}-{_population_digest(config, plans[name])[:12]}.parquet" for name in plans}
    for record in (folder / POPULATIONS_FOLDER).iterdir():
        if record.name not in records:
            record.unlink()


def _summarize(
    config: ZooConfig, folder: Path, index: pl.DataFrame, seconds: Mapping[str, float]
) -> ZooSummary:
    trained = index.filter(pl.col("status") == "trained")
    counts = trained.group_by("family").len().sort("family")
    return ZooSummary(
        name=config.name,
        digest=config.digest,
        folder=str(folder),
        num_models=len(trained),
        num_trained=trained.filter("is_final").height,
        num_diverged=index.filter(pl.col("status") == "diverged").height,
        num_params=int(trained["num_params"].sum()),
        families=dict(counts.iter_rows()),
        seconds={grid.name: seconds[grid.name] for grid in config.populations},
        reused=False,
    )
