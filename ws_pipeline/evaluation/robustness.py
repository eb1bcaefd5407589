"""Do representations mind what leaves a model the same? Drift of altered copies. Pure; no I/O.

``drift`` is the distance of an altered copy from its original over the distance from the original
to the nearest other model, median over held-out models: 0 is untouched, 1 is as far as a stranger.
``recall@1`` of ``original``: the share whose nearest model of the corpus is the original; of
``parent``: the share of altered fine-tunes whose nearest known parent of the family is theirs.
Distances are of embeddings as they are, of others standardised over the corpus.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.bootstrap import resample_means, resample_medians
from ws_pipeline.evaluation.comparison import Measurement, comparison_rows, draw_counts
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.features import FeatureTable, comparable_vectors
from ws_pipeline.evaluation.results import ResultContext, results_frame

EVALUATION = "robustness"
DRIFT = "drift"
RECALL = "recall@1"
ORIGINAL, PARENT, COPIES = "original", "parent", "copies"

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class AlteredCopies:
    """One alteration of some models.

    Attributes:
        name: Of the alteration.
        originals: Rows of the corpus, ``(copies,)``.
        vectors: Representation to vectors of the copies, ``(copies, features)``.
        parent_hits: Baseline to whether the nearest known parent is the true one, by rows of
            ``originals``; NaN where there is none to find.
    """

    name: str
    originals: NDArray[np.int64]
    vectors: Mapping[str, FloatArray]
    parent_hits: Mapping[str, FloatArray]


def evaluate_robustness(
    corpus: pl.DataFrame,
    tables: Sequence[FeatureTable],
    copies: Sequence[AlteredCopies],
    parents: BoolArray,
    *,
    recipe: str,
    config: EvaluationConfig | None = None,
    training_seed: int = 0,
) -> pl.DataFrame:
    """Return drift and recall of every representation under every alteration.

    Args:
        corpus: One row per model.
        tables: Representations of the corpus' models.
        copies: Their vectors after each alteration.
        parents: Who is whose parent, ``(models, models)``; row: the child.
        recipe: Name that the results carry.
        config: Resamples; the defaults where None.
        training_seed: The results' ``seed``.
    """
    config = config or EvaluationConfig()
    context = ResultContext(recipe=recipe, evaluation=EVALUATION, seed=training_seed)
    rows: list[dict[str, object]] = []
    for altered in copies:
        drift, original, parent = _measure(corpus, tables, altered, parents)
        lineages = corpus["lineage_root"].to_numpy().astype(str)[altered.originals]
        scored = ((COPIES, DRIFT, drift), (ORIGINAL, RECALL, original), (PARENT, RECALL, parent))
        for target, metric, values in scored:
            rows.extend(_rows(values, lineages, context, config, (target, altered.name, metric)))
    return results_frame(rows)


def _measure(
    corpus: pl.DataFrame,
    tables: Sequence[FeatureTable],
    altered: AlteredCopies,
    parents: BoolArray,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], dict[str, FloatArray]]:
    """Return drift, whether the original is nearest, and whether the parent is, by copy."""
    drift, original, parent = {}, {}, dict(altered.parent_hits)
    families = corpus["family"].to_numpy().astype(str)
    known = parents.any(axis=0)
    for table in tables:
        own, moved = _vectors(table, altered.vectors[table.name])
        gallery = table.available
        shift = np.linalg.norm(moved - own[altered.originals], axis=1)
        drift[table.name] = np.zeros(len(shift))
        original[table.name] = np.zeros(len(shift))
        parent[table.name] = np.full(len(shift), np.nan)
        for copy, row in enumerate(altered.originals.tolist()):
            others = gallery.copy()
            others[row] = False
            rivals = np.linalg.norm(own[others] - own[row], axis=1)
            drift[table.name][copy] = shift[copy] / max(float(rivals.min(initial=np.inf)), 1e-12)
            distance = np.linalg.norm(own - moved[copy], axis=1)
            nearest = float(distance[others].min(initial=np.inf))
            original[table.name][copy] = float(distance[row] < nearest)
            candidates = known & others & (families == families[row])
            if (parents[row] & candidates).any():
                found = np.flatnonzero(candidates)[distance[candidates].argmin()]
                parent[table.name][copy] = float(parents[row, found])
    return drift, original, parent


def _vectors(table: FeatureTable, moved: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the corpus' vectors and the copies', to be compared."""
    stacked = np.vstack([table.values, moved])
    reference = np.concatenate([table.available, np.zeros(len(moved), dtype=bool)])
    scaled = comparable_vectors(table, stacked, reference)
    return scaled[: len(table.values)], scaled[len(table.values) :]


def _rows(
    values: Mapping[str, FloatArray],
    lineages: NDArray[Any],
    context: ResultContext,
    config: EvaluationConfig,
    place: tuple[str, str, str],
) -> Iterator[dict[str, object]]:
    """Yield the rows of one metric: over the copies that all have a value."""
    target, slice_name, metric = place
    usable = np.logical_and.reduce([np.isfinite(each) for each in values.values()])
    counts = draw_counts(lineages[usable].tolist(), config)
    measured: dict[str, Measurement | None] = dict.fromkeys(values)
    if int(usable.sum()) >= config.min_test_models:
        for name, each in values.items():
            one = each[usable]
            if metric == DRIFT:
                drawn = resample_medians(one, counts)
                measured[name] = Measurement(value=float(np.median(one)), resamples=drawn)
            else:
                drawn = resample_means(one, counts)
                measured[name] = Measurement(value=float(one.mean()), resamples=drawn)
    yield from comparison_rows(
        measured,
        context=context,
        config=config,
        target=target,
        slice_name=slice_name,
        metric=metric,
        num_models=int(usable.sum()),
    )
