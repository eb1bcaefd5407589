"""How different the models of a zoo are: in weight space and in behaviour. Reads a zoo's folder.

One long table, so that figures, checks and later metrics need no new columns. Distances are taken
between models of one shape only, agreement between models of one architecture and test set only.

Distances are taken between all pairs as the models are, and between a sample of pairs after one of
them is aligned to the other by permutation; ``alignment_gain`` is the share of the L2 distance that
this takes away.

Source: METHOD section 6; the metrics of https://arxiv.org/abs/2504.10231, section 4.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ws_pipeline.zoo.aligned_distances import measure_pairs
from ws_pipeline.zoo.index import PREDICTIONS_FOLDER, REPOS_FOLDER, read_index

DIVERSITY_SCHEMA = {
    "family": pl.String,
    "space": pl.String,  # weights or behaviour
    "metric": pl.String,
    "group": pl.String,  # same_root, other_root, a tensor's name, a data set's name
    "statistic": pl.String,
    "value": pl.Float64,
    "num_values": pl.Int64,
}
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
MAX_PAIRED_MODELS = 1_000
"""Most models of one shape whose pairs are taken, the first of them: half a million pairs."""

Row = dict[str, object]
Values = NDArray[np.float64]


def measure_diversity(folder: Path) -> pl.DataFrame:
    """Measure a trained zoo.

    Returns:
        Rows of :data:`DIVERSITY_SCHEMA`: for every family, metric and group the mean, standard
        deviation and quantiles over models or over pairs of models.

    Raises:
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    index = read_index(folder)
    rows: list[Row] = []
    for (family,), members in index.group_by("family", maintain_order=True):
        rows += _measure_weights(folder, str(family), members)
        rows += _measure_behaviour(folder, str(family), members)
    return pl.DataFrame(rows, schema=DIVERSITY_SCHEMA)


def _measure_weights(folder: Path, family: str, members: pl.DataFrame) -> Iterator[Row]:
    """Norms of every tensor over the family, distances between its models of one shape."""
    norms: dict[str, list[float]] = {}
    shapes: dict[str, list[tuple[str, Values]]] = {}
    repos: dict[str, list[Path]] = {}
    for name, root in members.select("name", "root").iter_rows():
        tensors = load_file(folder / REPOS_FOLDER / name / "model.safetensors")
        trained = {key: tensors[key] for key in sorted(tensors) if tensors[key].dtype.kind == "f"}
        for key, tensor in trained.items():
            norms.setdefault(key, []).append(float(np.linalg.norm(tensor)))
        shape = repr([(key, tensor.shape) for key, tensor in trained.items()])
        flat = np.concatenate([tensor.ravel() for tensor in trained.values()], dtype=np.float64)
        shapes.setdefault(shape, []).append((root, flat))
        repos.setdefault(shape, []).append(folder / REPOS_FOLDER / name)
    for key, values in norms.items():
        yield from _describe(family, "weights", "norm", key, np.array(values))
    distances: dict[tuple[str, str], list[Values]] = {}
    for shape, models in shapes.items():
        roots = np.array([root for root, _ in models[:MAX_PAIRED_MODELS]])
        flats = np.stack([flat for _, flat in models[:MAX_PAIRED_MODELS]])
        l2, cosine = _pairwise_distances(flats)
        _collect_pairs(distances, "l2_distance", l2, roots)
        _collect_pairs(distances, "cosine_distance", cosine, roots)
        _collect_aligned(distances, repos[shape], [root for root, _ in models])
    for (metric, group), parts in distances.items():
        yield from _describe(family, "weights", metric, group, np.concatenate(parts))


def _measure_behaviour(folder: Path, family: str, members: pl.DataFrame) -> Iterator[Row]:
    """Metrics per data set, and how often two models predict the same."""
    for (dataset,), part in members.group_by("dataset", maintain_order=True):
        for metric in ("accuracy", "train_accuracy", "loss", "generalization_gap"):
            values = part[metric].to_numpy().astype(np.float64)
            yield from _describe(family, "behaviour", metric, str(dataset), values)
    agreements: dict[tuple[str, str], list[Values]] = {}
    for _, part in members.group_by("dataset", maintain_order=True):
        predicted = _read_predictions(folder, part.head(MAX_PAIRED_MODELS))
        same = np.stack([(predicted == row).mean(axis=1) for row in predicted])
        roots = part.head(MAX_PAIRED_MODELS)["root"].to_numpy()
        _collect_pairs(agreements, "agreement", same, roots)
    for (metric, group), parts in agreements.items():
        yield from _describe(family, "behaviour", metric, group, np.concatenate(parts))


def _read_predictions(folder: Path, members: pl.DataFrame) -> NDArray[np.uint8]:
    """Read predicted test labels ``(models, places)``."""
    files = {
        population: load_file(folder / PREDICTIONS_FOLDER / f"{population}.safetensors")
        for population in members["population"].unique()
    }
    rows = members.select("population", "name").iter_rows()
    return np.stack([files[population][name] for population, name in rows])


def _pairwise_distances(flats: Values) -> tuple[Values, Values]:
    """L2 and cosine distance of every pair, each ``(models, models)``."""
    gram = flats @ flats.T
    squares = np.diag(gram)
    l2 = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0))
    norms = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))
    return l2, 1 - gram / norms[:, None] / norms[None, :]


def _collect_pairs(
    into: dict[tuple[str, str], list[Values]],
    metric: str,
    matrix: Values,
    roots: NDArray[Any],
) -> None:
    """Sort the upper triangle by whether the two models share their lineage's root."""
    upper = np.triu(np.ones(matrix.shape, dtype=bool), k=1)
    same = roots[:, None] == roots[None, :]
    for group, chosen in (("same_root", upper & same), ("other_root", upper & ~same)):
        into.setdefault((metric, group), []).append(matrix[chosen])


def _collect_aligned(
    into: dict[tuple[str, str], list[Values]], repos: list[Path], roots: list[str]
) -> None:
    """Add distances after alignment, relatives and strangers apart."""
    pairs = measure_pairs(repos, roots)
    if pairs is None:
        return
    values = {
        "aligned_l2_distance": pairs.l2[:, 1],
        "aligned_cosine_distance": pairs.cosine[:, 1],
        "alignment_gain": 1 - pairs.l2[:, 1] / np.maximum(pairs.l2[:, 0], np.finfo(float).tiny),
    }
    for metric, column in values.items():
        for group, chosen in (("same_root", pairs.same_root), ("other_root", ~pairs.same_root)):
            into.setdefault((metric, group), []).append(column[chosen])


def _describe(family: str, space: str, metric: str, group: str, values: Values) -> Iterator[Row]:
    """Turn values into one row per statistic; none when there are no values."""
    if not len(values):
        return
    statistics = {"mean": values.mean(), "std": values.std()}
    statistics |= {name: np.quantile(values, q) for name, q in QUANTILES.items()}
    for statistic, value in statistics.items():
        yield {
            "family": family,
            "space": space,
            "metric": metric,
            "group": group,
            "statistic": statistic,
            "value": float(value),
            "num_values": len(values),
        }
