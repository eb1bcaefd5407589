"""Do relatives lie close to each other? Recall@k and mAP of nearest neighbours. Pure; no I/O.

Query: every held-out (test) model that has a relative in the gallery. Gallery: all other models of
the corpus, of every split. Similarity: cosine, of embeddings as they are, of other vectors
standardised over the gallery. recall@k is the share of queries with at least one relative among the
k nearest, as in metric learning; map is the mean over queries of average precision: how early all
relatives stand. `random` is the exact expectation of either under a random order.

Targets: ``parent`` and ``child`` (lineage edges), ``lineage`` (same root), ``family``, ``dataset``
(trained on the same data, whatever the family), and the harder ``lineage_in_family``: same root,
searched among models of the same family only, others then standardised within that family.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.evaluation.bootstrap import resample_means
from ws_pipeline.evaluation.comparison import Measurement, comparison_rows, draw_counts
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.features import (
    RANDOM,
    FeatureTable,
    comparable_vectors,
    embedding_tables,
)
from ws_pipeline.evaluation.results import SLICE_ALL, ResultContext, results_frame
from ws_pipeline.evaluation.statistics import family_statistics, pooled_statistics
from ws_pipeline.evaluation.targets import read_dataset

EVALUATION = "retrieval"
TARGETS = ("parent", "child", "lineage", "family", "dataset", "lineage_in_family")
MAP = "map"

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    """One retrieval task.

    Attributes:
        target: Name of the task.
        relevant: Who is a relative of whom, ``(queries, models)``.
        gallery: Who may be found, ``(queries, models)``; never the query itself.
        lineages: Lineage of each query.
        ranks: Features to gallery order: place of each model, ``(queries, models)``.
    """

    target: str
    relevant: BoolArray
    gallery: BoolArray
    lineages: list[str]
    ranks: Mapping[str, IntArray]


def evaluate_retrieval(
    corpus: pl.DataFrame,
    embeddings: Mapping[str, pl.DataFrame],
    layers: pl.DataFrame,
    edges: pl.DataFrame,
    *,
    recipe: str,
    config: EvaluationConfig | None = None,
    training_seed: int = 0,
) -> pl.DataFrame:
    """Return recall@k and mAP of relatives for every representation, s(W) and chance.

    Args:
        corpus: One row per model: hub_id, repo_id, family, split, lineage_root, num_params.
        embeddings: Representation name to frame (hub_id, embedding); ``untrained`` is a control.
        layers: The stage table weights/layers of the corpus' models.
        edges: child, parent (hub ids or repo ids), relation. Edges to models outside the corpus
            are of no use here and are skipped.
        recipe: Name that the results carry.
        config: ks and resamples; the defaults where None.
        training_seed: Seed that the backbone was trained with; the results' ``seed``.
    """
    config = config or EvaluationConfig()
    context = ResultContext(recipe=recipe, evaluation=EVALUATION, seed=training_seed)
    pooled = (pooled_statistics(corpus, layers), *embedding_tables(corpus, embeddings))
    usable = np.logical_and.reduce([table.available for table in pooled])
    searches = _plan_searches(
        corpus=corpus, pooled=pooled, layers=layers, edges=edges, usable=usable, config=config
    )
    rows = [row for search in searches for row in _score_rows(search, context, config)]
    return results_frame(rows)


def _plan_searches(
    *,
    corpus: pl.DataFrame,
    pooled: tuple[FeatureTable, ...],
    layers: pl.DataFrame,
    edges: pl.DataFrame,
    usable: BoolArray,
    config: EvaluationConfig,
) -> Iterator[_Search]:
    """Yield every task with the ranks of every representation."""
    queries = np.flatnonzero(usable & (corpus["split"] == "test").to_numpy())
    relations = relation_masks(corpus, edges)
    everyone = np.broadcast_to(usable, (len(queries), len(usable))).copy()
    everyone[np.arange(len(queries)), queries] = False
    generator = np.random.default_rng(config.seed)
    ranks = {
        table.name: rank_neighbours(_vectors(table, usable), queries, generator) for table in pooled
    }
    lineages = corpus["lineage_root"].to_numpy().astype(str)[queries].tolist()
    for target in TARGETS[:-1]:
        yield _Search(
            target=target,
            relevant=relations[target][queries],
            gallery=everyone,
            lineages=lineages,
            ranks=ranks,
        )
    yield _Search(
        target=TARGETS[-1],
        relevant=relations["lineage"][queries],
        gallery=everyone & relations["family"][queries],
        lineages=lineages,
        ranks=_rank_within_families(
            corpus=corpus,
            pooled=pooled,
            layers=layers,
            usable=usable,
            queries=queries,
            generator=generator,
        ),
    )


def relation_masks(corpus: pl.DataFrame, edges: pl.DataFrame) -> dict[str, BoolArray]:
    """Return who is whose parent, child, lineage, family or data set member, ``(models, models)``.

    Row: the query; column: the relative.
    """
    num_models = len(corpus)
    place = {name: row for row, name in enumerate(corpus["repo_id"])}
    place |= {name: row for row, name in enumerate(corpus["hub_id"])}
    parent = np.zeros((num_models, num_models), dtype=bool)
    for child_name, parent_name in edges.select("child", "parent").iter_rows():
        if child_name in place and parent_name in place:
            parent[place[child_name], place[parent_name]] = True
    masks = {"parent": parent, "child": parent.T.copy()}
    for target, column in (("lineage", "lineage_root"), ("family", "family")):
        codes = np.unique(corpus[column].to_numpy().astype(str), return_inverse=True)[1]
        masks[target] = codes[:, None] == codes[None, :]
    cards = corpus["card"] if "card" in corpus.columns else [None] * num_models
    datasets = np.array([read_dataset(card) for card in cards], dtype=str)
    masks["dataset"] = (datasets[:, None] == datasets[None, :]) & (datasets != "")[:, None]
    for mask in masks.values():
        np.fill_diagonal(mask, val=False)
    return masks


def rank_neighbours(
    vectors: FloatArray, queries: IntArray, generator: np.random.Generator
) -> IntArray:
    """Return the place of every model in each query's list, nearest first, by cosine.

    Ties are broken at random: in a corpus sorted by family, mere order would find relatives.

    Returns:
        Places of shape ``(queries, models)``.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    # Rounded, so that equal vectors tie in spite of the order in which a product sums.
    similarity = np.round(unit[queries] @ unit.T, 9)
    ranks = np.empty(similarity.shape, dtype=np.int64)
    for row, values in enumerate(similarity):
        order = np.lexsort((generator.permutation(len(values)), -values))
        ranks[row, order] = np.arange(len(values))
    return ranks


def hits_within(ranks: IntArray, relevant: BoolArray, gallery: BoolArray, k: int) -> FloatArray:
    """Return 1 where a relative is among the k nearest of the gallery, ``(queries,)``."""
    hits = np.zeros(len(ranks))
    for row, order in enumerate(np.argsort(ranks, axis=1)):
        found = order[gallery[row, order]][:k]
        hits[row] = float(relevant[row, found].any())
    return hits


def expected_hits(num_relevant: IntArray, num_gallery: IntArray, k: int) -> FloatArray:
    """Return the chance of a hit in a random order: 1 - C(N - R, k) / C(N, k), ``(queries,)``."""
    from scipy.stats import hypergeom

    draws = np.minimum(k, num_gallery)
    return np.asarray(1.0 - hypergeom.pmf(0, num_gallery, num_relevant, draws), dtype=np.float64)


def average_precision(ranks: IntArray, relevant: BoolArray, gallery: BoolArray) -> FloatArray:
    """Return each query's mean precision at the places of its relatives, ``(queries,)``."""
    precision = np.zeros(len(ranks))
    for row, order in enumerate(np.argsort(ranks, axis=1)):
        found = relevant[row, order[gallery[row, order]]]
        at = np.flatnonzero(found)
        if len(at):
            precision[row] = float((np.arange(1, len(at) + 1) / (at + 1)).mean())
    return precision


def expected_precision(num_relevant: IntArray, num_gallery: IntArray) -> FloatArray:
    """Return average precision in a random order, ``(queries,)``.

    At place k a relative stands with chance R / N, and (k - 1)(R - 1) / (N - 1) before it.
    """
    expected = np.zeros(len(num_relevant))
    for row, (relatives, size) in enumerate(zip(num_relevant, num_gallery, strict=True)):
        place = np.arange(1, int(size) + 1)
        others = (relatives - 1) / max(int(size) - 1, 1)
        expected[row] = float(((1.0 + (place - 1) * others) / place).mean()) if size else 0.0
    return expected


def _rank_within_families(
    *,
    corpus: pl.DataFrame,
    pooled: tuple[FeatureTable, ...],
    layers: pl.DataFrame,
    usable: BoolArray,
    queries: IntArray,
    generator: np.random.Generator,
) -> dict[str, IntArray]:
    """Return ranks within the query's family, s(W) layer by layer."""
    families = corpus["family"].to_numpy().astype(str)
    ranks = {t.name: np.zeros((len(queries), len(corpus)), dtype=np.int64) for t in pooled}
    for family in np.unique(families[queries]):
        members = families == family
        statistics = family_statistics(corpus.filter(pl.Series(members)), layers)
        for table in pooled:
            values = statistics.values if table.name == statistics.name else table.values[members]
            scaled = comparable_vectors(table, values, usable[members])
            vectors = np.zeros((len(corpus), scaled.shape[1]))
            vectors[members] = scaled
            rows = families[queries] == family
            ranks[table.name][rows] = rank_neighbours(vectors, queries[rows], generator)
    return ranks


def _vectors(table: FeatureTable, usable: BoolArray) -> FloatArray:
    """Return vectors to compare over the gallery; what is not usable is never looked at."""
    return comparable_vectors(table, table.values, usable)


def _score_rows(
    search: _Search, context: ResultContext, config: EvaluationConfig
) -> Iterator[dict[str, object]]:
    """Yield recall@k of one task over the queries that have a relative to find."""
    relevant = search.relevant & search.gallery
    askable = relevant.any(axis=1)
    num_queries = int(askable.sum())
    lineages = [search.lineages[row] for row in np.flatnonzero(askable)]
    counts = draw_counts(lineages, config)
    relevant, gallery = relevant[askable], search.gallery[askable]
    sizes = relevant.sum(axis=1), gallery.sum(axis=1)
    for metric in (*(f"recall@{k}" for k in config.ks), MAP):
        k = int(metric.partition("@")[2] or 0)
        measured: dict[str, Measurement | None] = dict.fromkeys((RANDOM, *search.ranks))
        if num_queries >= config.min_test_models:
            chance = expected_hits(*sizes, k) if k else expected_precision(*sizes)
            measured[RANDOM] = _mean(chance, counts)
            for name, ranks in search.ranks.items():
                places = ranks[askable]
                hits = (
                    hits_within(places, relevant, gallery, k)
                    if k
                    else average_precision(places, relevant, gallery)
                )
                measured[name] = _mean(hits, counts)
        yield from comparison_rows(
            measured,
            context=context,
            config=config,
            target=search.target,
            slice_name=SLICE_ALL,
            metric=metric,
            num_models=num_queries,
        )


def _mean(values: FloatArray, counts: FloatArray) -> Measurement:
    """Return the mean over queries and its resamples."""
    return Measurement(value=float(values.mean()), resamples=resample_means(values, counts))
