"""Which models descend from which, told from weights alone, against the known edges. Pure; no I/O.

Every held-out model is joined to its nearest comparable model of its family, if the distance is
below a threshold that was chosen on the edges of training and validation lineages. ``edge_f1`` is
over undirected edges; ``direction`` is the share of true edges whose end with the larger weights is
the child: training on goes on growing weights, as long as weight decay lets it.

Truth: ``base_model`` claims that nothing contradicts, and proven edges. Source: Horwitz et al., On
the origin of llamas: model tree heritage recovery, arXiv 2405.18432, who tell direction from
outliers; ours is the norm.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.comparison import Measurement, comparison_rows, draw_counts
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.features import RANDOM, FeatureTable, comparable_vectors
from ws_pipeline.evaluation.model_weights import ReadLayers
from ws_pipeline.evaluation.results import SLICE_ALL, ResultContext, results_frame
from ws_pipeline.evaluation.weight_distances import WEIGHT_DISTANCES, family_distances

EVALUATION = "lineage"
TARGET = "edges"
EDGE_F1, DIRECTION = "edge_f1", "direction"
NORM = "weight_norm"
"""The feature that direction is told from."""

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Nearest:
    """Of every model its nearest one (-1: none) and how far it is, ``(models,)`` each."""

    index: NDArray[np.int64]
    distance: FloatArray


def true_edges(corpus: pl.DataFrame, edges: pl.DataFrame) -> NDArray[np.int64]:
    """Return (child, parent) as rows of the corpus, ``(edges, 2)``; contradicted claims left out.

    Args:
        corpus: hub_id and repo_id.
        edges: child, parent (hub ids or repo ids) and, if known, contradiction.
    """
    place = {name: row for row, name in enumerate(corpus["repo_id"])}
    place |= {name: row for row, name in enumerate(corpus["hub_id"])}
    if "contradiction" in edges.columns:
        edges = edges.filter(pl.col("contradiction").fill_null("") == "")
    known = {
        (place[child], place[parent])
        for child, parent in edges.select("child", "parent").iter_rows()
        if child in place and parent in place and place[child] != place[parent]
    }
    return np.array(sorted(known), dtype=np.int64).reshape(-1, 2)


def evaluate_lineage(
    corpus: pl.DataFrame,
    tables: tuple[FeatureTable, ...],
    edges: pl.DataFrame,
    read_layers: ReadLayers,
    *,
    recipe: str,
    config: EvaluationConfig | None = None,
    training_seed: int = 0,
) -> pl.DataFrame:
    """Return edge F1 of every representation and weight distance, and how direction is told.

    Args:
        corpus: One row per model, with its layers.
        tables: Representations; compared by cosine of vectors standardised within the family.
        edges: Of the lineage graph (child, parent).
        read_layers: Reads weights.
        recipe: Name that the results carry.
        config: Resamples; the defaults where None.
        training_seed: The results' ``seed``.
    """
    config = config or EvaluationConfig()
    context = ResultContext(recipe=recipe, evaluation=EVALUATION, seed=training_seed)
    truth = true_edges(corpus, edges)
    names = (*(table.name for table in tables), *WEIGHT_DISTANCES)
    nearest = {
        name: _Nearest(
            index=np.full(len(corpus), -1, dtype=np.int64), distance=np.full(len(corpus), np.inf)
        )
        for name in names
    }
    for _, members, distances in family_distances(corpus, read_layers):
        rows = np.flatnonzero(members)
        measured = dict(distances or {})
        measured |= {table.name: _cosine_distances(table, members) for table in tables}
        for name, matrix in measured.items():
            closest = matrix.argmin(axis=1)
            distance = matrix[np.arange(len(rows)), closest]
            found = np.isfinite(distance)
            nearest[name].index[rows[found]] = rows[closest[found]]
            nearest[name].distance[rows] = distance
    scored = list(_score_edges(corpus, truth, nearest, context, config))
    norms = np.array([_norm(row) for row in corpus["layers"].to_list()])
    return results_frame([*scored, *_score_direction(corpus, truth, norms, context, config)])


def _cosine_distances(table: FeatureTable, members: BoolArray) -> FloatArray:
    """Return one minus the cosine within a family; inf to oneself and to what is not available."""
    available = table.available[members]
    vectors = comparable_vectors(table, table.values[members], available)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    distances = 1.0 - np.round(unit @ unit.T, 9)
    distances[~available, :] = np.inf
    distances[:, ~available] = np.inf
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances)


def _score_edges(
    corpus: pl.DataFrame,
    truth: NDArray[np.int64],
    nearest: Mapping[str, _Nearest],
    context: ResultContext,
    config: EvaluationConfig,
) -> Iterator[dict[str, object]]:
    """Yield the F1 over edges of held-out lineages."""
    test = (corpus["split"] == "test").to_numpy()
    lineages = corpus["lineage_root"].to_numpy().astype(str)
    roots, codes = np.unique(lineages[test], return_inverse=True)
    counts = draw_counts(roots.tolist(), config)
    num_edges = int(test[truth[:, 0]].sum()) if len(truth) else 0
    measured: dict[str, Measurement | None] = dict.fromkeys(nearest)
    if num_edges >= config.min_test_models:
        of_lineage = np.full(len(corpus), -1)
        of_lineage[test] = codes
        for name, found in nearest.items():
            threshold = choose_threshold(found.index, found.distance, truth, ~test)
            sums = _edge_counts(found, truth, test, threshold, of_lineage, len(roots))
            drawn = counts @ sums
            measured[name] = Measurement(
                value=float(_f1(sums.sum(axis=0)[None])[0]), resamples=_f1(drawn)
            )
    yield from comparison_rows(
        measured,
        context=context,
        config=config,
        target=TARGET,
        slice_name=SLICE_ALL,
        metric=EDGE_F1,
        num_models=num_edges,
    )


def choose_threshold(
    index: NDArray[np.int64], distance: FloatArray, truth: NDArray[np.int64], members: BoolArray
) -> float:
    """Return the largest distance of an edge that gives the best F1 over the members' edges."""
    pairs = {frozenset(edge) for edge in truth.tolist() if members[edge[0]]}
    order = [row for row in np.argsort(distance, kind="stable") if members[row] and index[row] >= 0]
    seen: set[frozenset[int]] = set()
    best, threshold, hits = 0.0, -np.inf, 0
    for row in order:
        pair = frozenset((int(row), int(index[row])))
        if pair not in seen:
            seen.add(pair)
            hits += pair in pairs
        score = 2.0 * hits / max(len(seen) + len(pairs), 1)
        if score > best:
            best, threshold = score, float(distance[row])
    return threshold


def _edge_counts(  # noqa: PLR0917 - one table of counts from six arrays
    found: _Nearest,
    truth: NDArray[np.int64],
    test: BoolArray,
    threshold: float,
    of_lineage: NDArray[np.int64],
    num_lineages: int,
) -> FloatArray:
    """Return (hits, found edges, true edges) of each held-out lineage, ``(lineages, 3)``."""
    sums = np.zeros((num_lineages, 3))
    pairs = {frozenset(edge) for edge in truth.tolist() if test[edge[0]]}
    for child, _ in truth[test[truth[:, 0]]]:
        sums[of_lineage[child], 2] += 1.0
    seen: set[frozenset[int]] = set()
    for row in np.flatnonzero(test & (found.index >= 0) & (found.distance <= threshold)):
        pair = frozenset((int(row), int(found.index[row])))
        if pair not in seen:
            seen.add(pair)
            sums[of_lineage[row], :2] += (float(pair in pairs), 1.0)
    return sums


def _f1(sums: FloatArray) -> FloatArray:
    """Return 2 hits / (found + true), of ``(..., 3)`` counts; NaN where there is no edge."""
    total = sums[:, 1] + sums[:, 2]
    return np.asarray(np.where(total > 0, 2.0 * sums[:, 0] / np.maximum(total, 1.0), np.nan))


def _score_direction(
    corpus: pl.DataFrame,
    truth: NDArray[np.int64],
    norms: FloatArray,
    context: ResultContext,
    config: EvaluationConfig,
) -> Iterator[dict[str, object]]:
    """Yield the share of true edges of held-out lineages whose child has the larger norm."""
    test = (corpus["split"] == "test").to_numpy()
    edges = truth[test[truth[:, 0]]]
    hits = (norms[edges[:, 0]] > norms[edges[:, 1]]).astype(float)
    measured: dict[str, Measurement | None] = {RANDOM: None, NORM: None}
    if len(edges) >= config.min_test_models:
        lineages = corpus["lineage_root"].to_numpy().astype(str)[edges[:, 0]]
        counts = draw_counts(lineages.tolist(), config)
        measured[RANDOM] = Measurement(value=0.5, resamples=np.full(len(counts), 0.5))
        measured[NORM] = Measurement(
            value=float(hits.mean()), resamples=counts @ hits / counts.sum(axis=1)
        )
    yield from comparison_rows(
        measured,
        context=context,
        config=config,
        target=TARGET,
        slice_name=SLICE_ALL,
        metric=DIRECTION,
        num_models=len(edges),
    )


def _norm(layers: Sequence[Mapping[str, Any]]) -> float:
    """Return a model's mean log of the layers' root mean square: no layer outweighs the rest."""
    squares = [layer["mean"] ** 2 + layer["std"] ** 2 for layer in layers]
    logs = [0.5 * np.log(square) for square in squares if square > 0]
    return float(np.mean(logs)) if logs else 0.0
