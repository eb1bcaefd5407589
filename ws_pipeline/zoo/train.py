"""Train a zoo into a folder: repos, predictions, one index. Resumable stack by stack.

::

    repos/<name>/             config.json, model.safetensors, README.md
    predictions/<population>.safetensors   name -> predicted test labels, uint8
    populations/<population>-<digest>.safetensors   the same of one finished stack
    populations/<population>-<digest>.parquet   its rows, written last
    index.parquet             all rows
    summary.json              written last: the zoo is complete
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import NoReturn

import polars as pl
import torch
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from ws_pipeline.progress import hides_bars
from ws_pipeline.zoo.config import FORMAT_VERSION, GridConfig, ZooConfig, digest_of
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.datasets.dataset import Dataset
from ws_pipeline.zoo.grid import plan_zoo
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
from ws_pipeline.zoo.stack import CPU, State
from ws_pipeline.zoo.training import Progress, TrainedModel, train_stack
from ws_pipeline.zoo.workers import Plans, divide_plans, run_stacks


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooSummary:
    """What a zoo came to.

    Args:
        num_models: Published repos, checkpoints included.
        num_trained: Models that were trained to the end.
        num_diverged: Models that were not.
        families: Repos per architecture.
        seconds: Wall time of each population's stacks, added up.
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
    device: torch.device = CPU,
    num_workers: int = 2,
    show_progress: bool | None = None,
) -> ZooSummary:
    """Train a zoo, or take up where an earlier run, or processes of ``share``, came to.

    Each worker is a thread that trains whole stacks with one torch thread: no barriers between
    cores inside an operation, and results that do not depend on the number of cores.

    Args:
        config: The zoo.
        folder: Where it goes; made when it is not there.
        data: Where data sets lie that do not ship with the dependencies.
        device: Where stacks train.
        num_workers: Threads that train at the same time.
        show_progress: Whether to draw a bar; None draws it on a terminal only.
    """
    found = read_summary(folder, config)
    if found is not None and repos_are_there(folder, read_index(folder)):
        return found
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    plans = plan_zoo(config)
    stacks = {name: divide_plans(population) for name, population in plans.items()}
    seconds = dict.fromkeys(plans, 0.0)
    stop = threading.Event()
    with show_models(config.name, sum(map(len, plans.values())), show_progress) as bar:

        def train(grid: GridConfig, stack: Plans) -> pl.DataFrame:
            def advance(num_epochs: int) -> None:
                if stop.is_set():
                    raise CancelledError
                bar.update(num_epochs / grid.num_epochs)

            start = time.perf_counter()
            dataset = load_dataset(grid.dataset, data)
            rows = train_recorded(config, stack, dataset, folder, device=device, progress=advance)
            seconds[grid.name] += round(time.perf_counter() - start, 2)
            return rows

        with one_torch_thread():
            tables = run_stacks(
                config.populations, stacks, train, num_workers=num_workers, stop=stop
            )
    _write_predictions(config, folder, stacks)
    index = pl.concat([tables[grid.name] for grid in config.populations])
    index.write_parquet(folder / f"{INDEX_FILE}.part")
    (folder / f"{INDEX_FILE}.part").replace(folder / INDEX_FILE)
    _remove_strangers(folder, config, stacks, index)
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
def one_torch_thread() -> Iterator[None]:
    """Let no operation spread over cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def show_models(name: str, num_models: int, show: bool | None) -> "tqdm[NoReturn]":
    """Draw a bar that counts models; those that are half-way count half."""
    return tqdm(
        total=num_models,
        desc=f"zoo {name}",
        unit="model",
        bar_format="{l_bar}{bar}| {n:.1f}/{total} models [{elapsed}<{remaining}, {rate_noinv_fmt}]",
        disable=hides_bars() if show is None else not show,
    )


def _record_name(config: ZooConfig, stack: Plans) -> str:
    """Name what is kept of a finished stack, without an ending."""
    models = [[plan.model_id, plan.keep_epochs, plan.varied, plan.eval_rows] for plan in stack]
    digest = digest_of([FORMAT_VERSION, config.name, config.owner, config.licence, models])
    return f"{stack[0].population}-{digest[:12]}"


def train_recorded(
    config: ZooConfig,
    stack: Plans,
    dataset: Dataset,
    folder: Path,
    *,
    device: torch.device,
    progress: Progress,
) -> pl.DataFrame:
    """Train a stack and write its repos, unless an earlier run did so.

    Returns:
        Its rows of the index.
    """
    name = _record_name(config, stack)
    record = folder / POPULATIONS_FOLDER / f"{name}.parquet"
    record.parent.mkdir(parents=True, exist_ok=True)
    predictions_file = record.with_suffix(".safetensors")
    if record.is_file() and predictions_file.is_file():
        table = pl.read_parquet(record)
        if repos_are_there(folder, table):
            progress(sum(plan.num_epochs for plan in stack))
            return table
    rows: list[dict[str, object]] = []
    predictions: dict[str, Tensor] = {}
    writer = RepoWriter(config, stack[0], dataset, folder)
    for model in _train_one_stack(stack, dataset, folder, device, progress):
        rows += writer.write_model(model, predictions)
    write_if_changed(predictions_file, save(predictions))
    table = pl.DataFrame(rows, schema=dict(INDEX_SCHEMA))
    part = record.with_name(f".{record.name}.{os.getpid()}-{threading.get_ident()}")
    table.write_parquet(part)
    part.replace(record)
    return table


def _write_predictions(
    config: ZooConfig, folder: Path, stacks: Mapping[str, Iterable[Plans]]
) -> None:
    """Put the predictions of each population's stacks together."""
    (folder / PREDICTIONS_FOLDER).mkdir(exist_ok=True)
    for name, parts in stacks.items():
        together: dict[str, Tensor] = {}
        for stack in parts:
            path = folder / POPULATIONS_FOLDER / f"{_record_name(config, stack)}.safetensors"
            together |= load(path.read_bytes())
        write_if_changed(folder / PREDICTIONS_FOLDER / f"{name}.safetensors", save(together))


def _train_one_stack(
    plans: Plans, dataset: Dataset, folder: Path, device: torch.device, progress: Progress
) -> list[TrainedModel]:
    """Train the plans whose parents came through; the others come back without a checkpoint."""
    parents: dict[str, State] = {}
    for plan in plans:
        if plan.parent is not None and plan.parent.model_id not in parents:
            repo = folder / REPOS_FOLDER / plan.parent.name
            if repo.is_dir():
                parents[plan.parent.model_id] = read_state(plan.parent, dataset, repo)
    able = [plan for plan in plans if plan.parent is None or plan.parent.model_id in parents]
    trained = (
        train_stack(able, dataset, parents=parents, device=device, progress=progress)
        if able
        else []
    )
    results = {model.plan.model_id: model for model in trained}
    return [results.get(plan.model_id, TrainedModel(plan=plan)) for plan in plans]


def _remove_strangers(
    folder: Path, config: ZooConfig, stacks: Mapping[str, Iterable[Plans]], index: pl.DataFrame
) -> None:
    """Delete what an earlier config or a killed run left: this folder is one zoo."""
    repos = folder / REPOS_FOLDER
    kept = set(index.filter(pl.col("status") == "trained")["name"])
    for repo in repos.iterdir() if repos.is_dir() else ():
        if repo.name not in kept:
            rmtree(repo)
    records = {_record_name(config, stack) for parts in stacks.values() for stack in parts}
    for record in (folder / POPULATIONS_FOLDER).iterdir():
        if record.stem not in records:
            record.unlink()
    for unfinished in folder.rglob(".write-*"):
        unfinished.unlink()


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
        seconds=seconds,
        reused=False,
    )
