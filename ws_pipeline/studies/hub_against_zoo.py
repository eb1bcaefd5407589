"""Hub against zoo: is a backbone better that was trained on models nobody designed?

The claim of arXiv 2510.02096, at equal steps, size and number of models: one backbone trained on
the hub, one on the zoos, one on both, on every evaluation there is. Reads the corpus' tables.
"""

from collections.abc import Mapping

import polars as pl

from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.features import UNTRAINED
from ws_pipeline.evaluation.properties import evaluate_properties
from ws_pipeline.evaluation.results import concat_results
from ws_pipeline.evaluation.retrieval import evaluate_retrieval
from ws_pipeline.recipes import recipe
from ws_pipeline.storage.store import Store
from ws_pipeline.studies.bench import Bench
from ws_pipeline.studies.composition import HUB, SEEDS, ZOOS, shorten, split_families
from ws_pipeline.studies.study import Population, Study, Variant

LAYERS = "weights/layers"
LINEAGE = "corpus/lineage"


def hub_against_zoo_study(corpus: pl.DataFrame, *, num_steps: int = 150) -> Study:
    """Return the study of a corpus with zoos and a hub; a cell takes half a minute of one core."""
    zoos, hub = split_families(corpus)
    trained = corpus.filter(pl.col("split") == "train")["family"].to_list()
    counts = [sum(name in names for name in trained) for names in (set(zoos), set(hub))]
    base = shorten(recipe("tiny"), num_steps=num_steps)
    chosen = {"zoos": zoos, "hub": hub, "hub and zoos": (*zoos, *hub)}
    return Study(
        name="hub-against-zoo",
        question="Is a backbone of the hub as good as one of the zoos?",
        variants=tuple(
            Variant(
                name=name,
                recipe=base,
                factors={"trained on": name},
                population=Population(families=families, num_models=min(counts)),
                seeds=SEEDS,
            )
            for name, families in chosen.items()
        ),
        baseline="zoos",
        groups={ZOOS: frozenset(zoos), HUB: frozenset(hub)},
        embed_all=True,
    )


def evaluate_cells(
    bench: Bench, study: Study, *, config: EvaluationConfig | None = None
) -> pl.DataFrame:
    """Return properties and retrieval of all backbones, for each seed that has all of them."""
    from ws_pipeline.backbone.embed import embed_models
    from ws_pipeline.backbone.model import untrained

    by_seed: dict[int, dict[str, pl.DataFrame]] = {}
    for cell in study.cells():
        tables = bench.read(cell)
        if tables is not None:
            by_seed.setdefault(cell.seed, {})[cell.variant.name] = tables.embeddings
    found = []
    for seed, embeddings in by_seed.items():
        if len(embeddings) == len(study.variants):
            fresh = untrained(study.variants[0].recipe.backbone, seed)
            window = study.variants[0].recipe.training.window_size
            vectors = embed_models(fresh, bench.store, bench.embedded, window=window)
            control = {UNTRAINED: vectors.select("hub_id", "embedding")}
            every = embeddings | control
            found.append(
                evaluate_embeddings(bench.store, bench.corpus, every, seed=seed, config=config)
            )
    return concat_results(found)


def evaluate_embeddings(
    store: Store,
    corpus: pl.DataFrame,
    embeddings: Mapping[str, pl.DataFrame],
    *,
    seed: int,
    config: EvaluationConfig | None = None,
) -> pl.DataFrame:
    """Return properties and retrieval of several backbones of one seed, with all controls.

    Args:
        store: Of the corpus.
        corpus: Rows of `corpus/splits`.
        embeddings: Backbone name to frame (hub_id, embedding); `untrained` is a control.
        seed: That they were trained with.
        config: Targets and resamples; the defaults where None.
    """
    keys = store.tables.keys(LAYERS)
    layers = pl.concat([store.tables.scan(key).collect() for key in keys], how="diagonal_relaxed")
    embedded = embeddings[next(iter(embeddings))].select("hub_id")
    corpus = corpus.join(embedded, on="hub_id", how="semi", maintain_order="left")
    layers = layers.join(corpus, on=["hub_id", "revision"], how="semi")
    common = {"recipe": "tiny", "config": config, "training_seed": seed}
    found = evaluate_properties(corpus, embeddings, layers, **common)  # type: ignore[arg-type]
    edges = store.tables.scan(LINEAGE).collect()
    related = evaluate_retrieval(corpus, embeddings, layers, edges, **common)  # type: ignore[arg-type]
    return concat_results([found.results, related])
