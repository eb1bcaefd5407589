"""How differently the models of a zoo behave: rows of the diversity table. Reads a zoo's folder.

From the index and the recorded predictions of all models, and from running a sample of them
(``model_probes``). Where a data set is not there any more, what needs its labels is left out, with
a warning.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.behaviour import agreement, kappa_of_errors, linear_cka
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.diversity_rows import (
    Pairs,
    Row,
    collect_pairs,
    describe,
    describe_explained,
    describe_pairs,
)
from ws_pipeline.zoo.factor_effects import MIN_MODELS, varied_factors
from ws_pipeline.zoo.held_out import HeldOut, take_test_rows
from ws_pipeline.zoo.index import PREDICTIONS_FOLDER, REPOS_FOLDER
from ws_pipeline.zoo.model_probes import MAX_PROBED_MODELS, probe_models
from ws_pipeline.zoo.samples import sample_evenly, sample_relatives

METRICS = ("accuracy", "train_accuracy", "loss", "generalization_gap")
EXPLAINED_METRICS = ("accuracy", "generalization_gap", "loss")
MAX_COMPARED_MODELS = 400
"""Most models of one data set whose predictions are compared: 80,000 pairs. With
10,000 test rows that takes 1.6 seconds."""
MAX_LEVELS = 12
"""Most levels of a factor that are described one by one."""

logger = logging.getLogger(__name__)


def measure_behaviour(
    folder: Path, family: str, members: pl.DataFrame, data: Path | None
) -> Iterator[Row]:
    """Describe one family.

    Args:
        folder: The zoo's.
        family: Name of an architecture.
        members: Its rows of the index.
        data: Where the user's data sets lie.
    """
    pairs: Pairs = {}
    for (dataset,), part in members.group_by("dataset", maintain_order=True):
        name = str(dataset)
        for metric in METRICS:
            values = part[metric].to_numpy().astype(np.float64)
            yield from describe(family, "behaviour", metric, name, values)
        yield from _describe_factors(folder, family, name, part, data)
        yield from _compare_models(folder, family, name, part, data=data, pairs=pairs)
    yield from describe_pairs(family, "behaviour", pairs)


def _describe_factors(
    folder: Path, family: str, dataset: str, part: pl.DataFrame, data: Path | None
) -> Iterator[Row]:
    """Describe accuracy and gap per level, and what each factor explains."""
    for (stage,), models in part.filter("is_final").group_by("stage", maintain_order=True):
        if len(models) < MIN_MODELS:
            continue
        wrong = _read_errors(folder, dataset, models, data)
        for factor, levels in varied_factors(models).items():
            group = f"{dataset}/{stage}: {factor}"
            for metric in EXPLAINED_METRICS:
                values = models[metric].to_numpy().astype(np.float64)
                yield from describe_explained(family, "behaviour", metric, group, values, levels)
                distinct = sorted(set(levels))
                for level in distinct if metric != "loss" and len(distinct) <= MAX_LEVELS else ():
                    own = values[np.array(levels) == level]
                    where = f"{group}={level}"
                    yield from describe(family, "behaviour", metric, where, own)
            if wrong is not None:
                errors = wrong.astype(np.float64)
                yield from describe_explained(family, "behaviour", "errors", group, errors, levels)


def _compare_models(
    folder: Path, family: str, dataset: str, part: pl.DataFrame, *, data: Path | None, pairs: Pairs
) -> Iterator[Row]:
    """Collect what pairs of models share, and describe what running a sample of them gives."""
    compared = part[sample_relatives(part["root"].to_list(), MAX_COMPARED_MODELS)]
    predicted = read_predictions(folder, compared)
    if predicted is None:
        return
    roots = compared["root"].to_numpy()
    collect_pairs(pairs, "agreement", agreement(predicted), roots)
    rows = _find_rows(dataset, compared, predicted.shape[1], data)
    if rows is None:
        return
    wrong = predicted != rows.labels.flatten().numpy()
    collect_pairs(pairs, "kappa_of_errors", kappa_of_errors(wrong), roots)
    finals = part.filter("is_final")
    probed = finals[sample_evenly(len(finals), MAX_PROBED_MODELS)]
    repos = [folder / REPOS_FOLDER / name for name in probed["name"]]
    probes = probe_models(repos, family, rows)
    for metric in probes[0].metrics if probes else ():
        values = np.array([probe.metrics[metric] for probe in probes])
        yield from describe(family, "behaviour", metric, dataset, values)
    if probes:
        cka = linear_cka([probe.features for probe in probes])
        collect_pairs(pairs, "cka", cka, probed["root"].to_numpy())


def _read_errors(
    folder: Path, dataset: str, models: pl.DataFrame, data: Path | None
) -> NDArray[np.bool_] | None:
    """Whether each model errs on each test row; None where that is not known any more."""
    predicted = read_predictions(folder, models)
    if predicted is None:
        return None
    rows = _find_rows(dataset, models, predicted.shape[1], data)
    if rows is None:
        return None
    wrong: NDArray[np.bool_] = predicted != rows.labels.flatten().numpy()
    return wrong


def read_predictions(folder: Path, members: pl.DataFrame) -> NDArray[np.uint8] | None:
    """Read predicted test labels ``(models, places)``; None unless all have as many."""
    files = {
        population: load_file(folder / PREDICTIONS_FOLDER / f"{population}.safetensors")
        for population in members["population"].unique()
    }
    rows = members.select("population", "name").iter_rows()
    found = [files[population].get(name) for population, name in rows]
    first = found[0]
    if first is None or any(row is None or row.shape != first.shape for row in found):
        return None
    return np.stack([row for row in found if row is not None])


def _find_rows(
    name: str, members: pl.DataFrame, num_predictions: int, data: Path | None
) -> HeldOut | None:
    try:
        dataset = load_dataset(name, data)
    except MissingInputError as error:
        logger.warning("Errors and features on %s are left out: %s", name, error)
        return None
    context = int(
        members.select(pl.col("factors").str.json_path_match("$.context")).item(0, 0) or 0
    )
    return take_test_rows(dataset, num_predictions=num_predictions, context=context)
