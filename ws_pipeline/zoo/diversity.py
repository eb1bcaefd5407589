"""How different the models of a zoo are: in weight space and in behaviour. Reads a zoo's folder.

One long table, so that figures, checks and later metrics need no new columns. Distances are taken
between models of one shape only, agreement between models of one architecture and test set only.

Distances are taken between all pairs as the models are, and between a sample of pairs after one of
them is aligned to the other by permutation; ``alignment_gain`` is the share of the L2 distance that
this takes away. Behaviour is in ``diversity_behaviour``, figures and words in
``diversity_report``.

Source: METHOD section 6; the metrics of https://arxiv.org/abs/2504.10231, section 4.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from ws_pipeline.zoo.aligned_distances import measure_pairs
from ws_pipeline.zoo.diversity_behaviour import measure_behaviour
from ws_pipeline.zoo.diversity_rows import (
    DIVERSITY_SCHEMA,
    Pairs,
    Row,
    Values,
    collect_pairs,
    describe,
    describe_explained,
    describe_pairs,
)
from ws_pipeline.zoo.factor_effects import MIN_MODELS, varied_factors
from ws_pipeline.zoo.index import REPOS_FOLDER, read_index
from ws_pipeline.zoo.samples import sample_evenly, sample_relatives
from ws_pipeline.zoo.spectra import spectral_summaries

MAX_PAIRED_MODELS = 1_000
"""Most models of one shape whose pairs are taken: half a million pairs."""
MAX_DECOMPOSED_MODELS = 200
"""Most models of one shape whose singular values are taken. A small CNN takes 0.3 ms."""


@dataclass(kw_only=True, slots=True)
class _Shape:
    """The models of one shape: their repos, rows of the index and weights as vectors."""

    repos: list[Path] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    flats: list[Values] = field(default_factory=list)


def measure_diversity(folder: Path, *, data: Path | None = None) -> pl.DataFrame:
    """Measure a trained zoo.

    Args:
        folder: The zoo's.
        data: Where data sets lie that do not ship with the dependencies.

    Returns:
        Rows of ``DIVERSITY_SCHEMA``: for every family, metric and group the mean, standard
        deviation and quantiles over models or over pairs of models; and of each generating factor
        the share of the variance that it explains.

    Raises:
        MissingInputError: When ``folder`` holds no finished zoo.
    """
    index = read_index(folder)
    rows: list[Row] = []
    for (family,), members in index.group_by("family", maintain_order=True):
        rows += _measure_weights(folder, str(family), members)
        rows += measure_behaviour(folder, str(family), members, data)
    return pl.DataFrame(rows, schema=DIVERSITY_SCHEMA)


def _measure_weights(folder: Path, family: str, members: pl.DataFrame) -> Iterator[Row]:
    """Norms of every tensor over the family, distances between its models of one shape."""
    norms: dict[str, list[float]] = {}
    shapes: dict[str, _Shape] = {}
    for place, name in enumerate(members["name"]):
        tensors = load_file(folder / REPOS_FOLDER / name / "model.safetensors")
        trained = {key: tensors[key] for key in sorted(tensors) if tensors[key].dtype.kind == "f"}
        for key, tensor in trained.items():
            norms.setdefault(key, []).append(float(np.linalg.norm(tensor)))
        found = shapes.setdefault(repr([(k, t.shape) for k, t in trained.items()]), _Shape())
        found.repos.append(folder / REPOS_FOLDER / name)
        found.places.append(place)
        flat = np.concatenate([tensor.ravel() for tensor in trained.values()], dtype=np.float64)
        found.flats.append(flat)
    for key, values in norms.items():
        yield from describe(family, "weights", "norm", key, np.array(values))
    yield from _describe_spectra(family, shapes.values())
    pairs: Pairs = {}
    for number, shape in enumerate(shapes.values(), start=1):
        own = members[shape.places]
        label = "" if len(shapes) == 1 else f" shape {number}"
        _collect_distances(pairs, shape, own["root"].to_list())
        yield from _describe_factors(family, label, own, np.stack(shape.flats))
    yield from describe_pairs(family, "weights", pairs)


def _describe_spectra(family: str, shapes: Iterable[_Shape]) -> Iterator[Row]:
    found: dict[tuple[str, str], list[float]] = {}
    for shape in shapes:
        for place in sample_evenly(len(shape.repos), MAX_DECOMPOSED_MODELS):
            tensors = load_file(shape.repos[place] / "model.safetensors")
            for tensor, metric, value in spectral_summaries(tensors):
                found.setdefault((metric, tensor), []).append(value)
    for (metric, tensor), values in found.items():
        yield from describe(family, "weights", metric, tensor, np.array(values))


def _describe_factors(
    family: str, label: str, members: pl.DataFrame, flats: Values
) -> Iterator[Row]:
    """Describe what each factor explains of the weights, and of their norm."""
    members = members.with_row_index("place").filter("is_final")
    for (dataset, stage), models in members.group_by("dataset", "stage", maintain_order=True):
        if len(models) < MIN_MODELS:
            continue
        own = flats[models["place"].to_numpy()]
        measured = {"weights": own, "weight_norm": np.linalg.norm(own, axis=1)}
        for factor, levels in varied_factors(models).items():
            group = f"{dataset}/{stage}{label}: {factor}"
            for metric, values in measured.items():
                yield from describe_explained(family, "weights", metric, group, values, levels)


def _collect_distances(into: Pairs, shape: _Shape, roots: list[str]) -> None:
    """Add distances of all pairs, and of a sample of them after alignment."""
    places = sample_relatives(roots, MAX_PAIRED_MODELS)
    repos, chosen = [shape.repos[place] for place in places], np.array(roots)[places]
    l2, cosine = _pairwise_distances(np.stack([shape.flats[place] for place in places]))
    collect_pairs(into, "l2_distance", l2, chosen)
    collect_pairs(into, "cosine_distance", cosine, chosen)
    pairs = measure_pairs(repos, chosen.tolist())
    if pairs is None:
        return
    values = {
        "aligned_l2_distance": pairs.l2[:, 1],
        "aligned_cosine_distance": pairs.cosine[:, 1],
        "alignment_gain": 1 - pairs.l2[:, 1] / np.maximum(pairs.l2[:, 0], np.finfo(float).tiny),
    }
    for metric, column in values.items():
        for group, taken in (("same_root", pairs.same_root), ("other_root", ~pairs.same_root)):
            into.setdefault((metric, group), []).append(column[taken])


def _pairwise_distances(flats: Values) -> tuple[Values, Values]:
    """L2 and cosine distance of every pair, each ``(models, models)``."""
    gram = flats @ flats.T
    squares = np.diag(gram)
    l2 = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0))
    norms = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))
    return l2, 1 - gram / norms[:, None] / norms[None, :]
