"""Do soups of fine-tunes beat their members, and averages of epochs the last one? Reads a zoo.

Members are chosen on validation and everything is reported on test. The soup of one parent's
fine-tunes is one observation; intervals are over them. Not here: the soups themselves (``soups``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from ws_pipeline.errors import MissingInputError
from ws_pipeline.zoo.datasets.dataset import LabelledDataset
from ws_pipeline.zoo.index import REPOS_FOLDER, read_index
from ws_pipeline.zoo.interpolation import Evaluator
from ws_pipeline.zoo.soups import average_epochs, make_greedy_soup, make_uniform_soup
from ws_pipeline.zoo.weights import Weights, read_arrays

MIN_MEMBERS = 2

SOUPS_SCHEMA = {
    "parent": pl.String,
    "num_params": pl.Int64,  # tells the shapes apart: only models of one shape have an average
    "num_members": pl.Int64,
    "num_greedy": pl.Int64,  # members that the greedy soup took
    "mean_member": pl.Float64,
    "best_member": pl.Float64,  # by validation
    "uniform": pl.Float64,
    "greedy": pl.Float64,
}
EPOCHS_SCHEMA = {
    "name": pl.String,
    "factors": pl.String,
    "num_epochs": pl.Int64,  # that were averaged
    "last": pl.Float64,
    "average": pl.Float64,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """A mean difference with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float


def compare_soups(folder: Path, population: str, dataset: LabelledDataset) -> pl.DataFrame:
    """Cook the fine-tunes of every parent, shape by shape.

    Returns:
        A row of :data:`SOUPS_SCHEMA` per parent and shape; accuracies on the test set.

    Raises:
        MissingInputError: When no parent has two fine-tunes of a shape.
    """
    final = read_index(folder).filter(pl.col("is_final"), population=population)
    rows = []
    for (parent, num_params), members in final.group_by("root", "num_params", maintain_order=True):
        if members.height < MIN_MEMBERS:
            continue
        repos = [folder / REPOS_FOLDER / name for name in members["name"]]
        family = members["family"][0]
        val, test = (Evaluator(repos[0], family, dataset, split=s) for s in ("val", "test"))
        models = [read_arrays(repo) for repo in repos]
        uniform = make_uniform_soup(models, partial(_accuracy_of, val))
        greedy = make_greedy_soup(models, partial(_accuracy_of, val))
        accuracies = [test.score(model)[1] for model in models]
        rows.append(
            {
                "parent": parent,
                "num_params": num_params,
                "num_members": len(models),
                "num_greedy": len(greedy.members),
                "mean_member": float(np.mean(accuracies)),
                "best_member": accuracies[greedy.members[0]],
                "uniform": test.score(uniform.weights)[1],
                "greedy": test.score(greedy.weights)[1],
            }
        )
    if not rows:
        raise MissingInputError(
            f"{population!r} of {folder} must hold two fine-tunes of one parent and one shape."
        )
    return pl.DataFrame(rows, schema=SOUPS_SCHEMA)


def _accuracy_of(evaluator: Evaluator, weights: Weights) -> float:
    return evaluator.score(weights)[1]


def compare_epoch_averages(folder: Path, population: str, dataset: LabelledDataset) -> pl.DataFrame:
    """Average the kept epochs of every model that has some, and compare with its last one.

    Returns:
        A row of :data:`EPOCHS_SCHEMA` per model; accuracies on the test set.

    Raises:
        MissingInputError: When no model of the population has kept epochs.
    """
    index = read_index(folder).filter(population=population).sort("model_id", "epoch")
    rows = []
    for _, epochs in index.group_by("model_id", maintain_order=True):
        if epochs.height < MIN_MEMBERS:
            continue
        repos = [folder / REPOS_FOLDER / name for name in epochs["name"]]
        test = Evaluator(repos[-1], epochs["family"][0], dataset)
        checkpoints = [read_arrays(repo) for repo in repos]
        averaged = average_epochs(checkpoints, last=len(checkpoints))
        rows.append(
            {
                "name": epochs["name"][-1],
                "factors": epochs["factors"][-1],
                "num_epochs": epochs.height,
                "last": test.score(checkpoints[-1])[1],
                "average": test.score(averaged)[1],
            }
        )
    if not rows:
        raise MissingInputError(f"{population!r} of {folder} must hold kept epochs, it has none.")
    return pl.DataFrame(rows, schema=EPOCHS_SCHEMA)


def summarise_gain(differences: Sequence[float]) -> Gain:
    """Average differences; the interval needs at least two."""
    mean = float(np.mean(differences))
    if len(differences) < MIN_MEMBERS:
        return Gain(mean=mean, low=float("nan"), high=float("nan"))
    error = float(stats.sem(differences))
    reach = error * float(stats.t.ppf(0.975, len(differences) - 1))
    return Gain(mean=mean, low=mean - reach, high=mean + reach)
