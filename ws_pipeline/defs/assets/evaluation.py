"""What a representation is good for, by recipe, and all recipes side by side."""

import dataclasses
from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.backbone import EMBEDDINGS, HALO_SHARE, MODEL
from ws_pipeline.defs.assets.corpus import LINEAGE_TABLE, SPLITS
from ws_pipeline.defs.assets.generation import GENERATION
from ws_pipeline.defs.assets.hub import REPOS
from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.held_out import read_held_out
from ws_pipeline.defs.io_managers import load_all_partitions, table_key
from ws_pipeline.defs.partitions import recipes
from ws_pipeline.defs.resources import HomeResource, MlflowResource, StoreResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.runs import load_backbones
from ws_pipeline.defs.step import Step, markdown_table
from ws_pipeline.hub.lineage import lineage_edges
from ws_pipeline.recipes import recipe
from ws_pipeline.storage.store import Store

PROPERTIES = dg.AssetKey(["evaluation", "properties"])
RETRIEVAL = dg.AssetKey(["evaluation", "retrieval"])
RECONSTRUCTION = dg.AssetKey(["evaluation", "reconstruction"])
LEADERBOARD = dg.AssetKey(["evaluation", "leaderboard"])
RESULTS = (PROPERTIES, RETRIEVAL, RECONSTRUCTION, GENERATION)

_SPLITS = dg.AssetIn(SPLITS)
_EMBEDDINGS = dg.AssetIn(EMBEDDINGS)
_LAYERS = dg.AssetIn(LAYERS, partition_mapping=dg.AllPartitionMapping())


@dg.asset(
    key=PROPERTIES,
    partitions_def=recipes,
    ins={"splits": _SPLITS, "embeddings": _EMBEDDINGS, "layers": _LAYERS},
    group_name="evaluation",
    kinds={"numpy", "polars", "parquet"},
    owners=["team:evaluation"],
    code_version="4",
)
@retried
def properties(  # noqa: PLR0917 - Dagster passes inputs and resources by name
    context: dg.AssetExecutionContext,
    splits: pl.LazyFrame,
    embeddings: pl.LazyFrame,
    layers: pl.LazyFrame,
    home: HomeResource,
    store: StoreResource,
) -> dg.MaterializeResult[Any]:
    """Probes for accuracy, gap, epoch and learning rate on lineages that were never trained on.

    Beside the embedding: its blocks, s(W), hyper-parameters only, the family's name, the mean, the
    untrained backbone. Every number has a bootstrap interval over lineages.
    """
    from ws_pipeline.evaluation.model_weights import layer_reader
    from ws_pipeline.evaluation.properties import evaluate_properties

    step = Step.begin(context)
    chosen = recipe(step.partition)
    opened = store.open()
    done = evaluate_properties(
        read_held_out(home.folder, opened, chosen.name, splits.collect()),
        representations(embeddings.collect()),
        layers.collect(),
        recipe=chosen.name,
        config=chosen.evaluation,
        training_seed=chosen.training.seed,
        read_layers=layer_reader(opened),
    )
    for name in ("predictions", "probes", "missing"):
        opened.tables.write(f"evaluation/properties_{name}/{chosen.name}", getattr(done, name))
    return step.finish(
        done.results,
        config_digest=config_digest(PROPERTIES, step.partition),
        metadata={"results": results_table(done.results), "num_left_out": done.missing.height},
    )


@dg.asset(
    key=RETRIEVAL,
    partitions_def=recipes,
    ins={
        "splits": _SPLITS,
        "embeddings": _EMBEDDINGS,
        "layers": _LAYERS,
        "repos": dg.AssetIn(REPOS, partition_mapping=dg.AllPartitionMapping()),
    },
    deps=[MODEL],
    group_name="evaluation",
    kinds={"numpy", "polars", "parquet"},
    owners=["team:evaluation"],
    code_version="4",
)
@retried
def retrieval(  # noqa: PLR0917 - Dagster passes inputs and resources by name
    context: dg.AssetExecutionContext,
    splits: pl.LazyFrame,
    embeddings: pl.LazyFrame,
    layers: pl.LazyFrame,
    repos: pl.LazyFrame,
    home: HomeResource,
    store: StoreResource,
) -> dg.MaterializeResult[Any]:
    """Relatives of held-out models: nearest neighbours, lineage edges, drift of altered copies."""
    from ws_pipeline.evaluation.altered_copies import CopyMaker
    from ws_pipeline.evaluation.features import embedding_tables
    from ws_pipeline.evaluation.lineage_recovery import evaluate_lineage
    from ws_pipeline.evaluation.model_weights import layer_reader
    from ws_pipeline.evaluation.results import concat_results
    from ws_pipeline.evaluation.retrieval import evaluate_retrieval, relation_masks
    from ws_pipeline.evaluation.robustness import evaluate_robustness

    step = Step.begin(context)
    chosen = recipe(step.partition)
    opened = store.open()
    corpus = read_held_out(home.folder, opened, chosen.name, splits.collect())
    edges = read_edges(opened, repos)
    vectors = representations(embeddings.collect())
    read = layer_reader(opened)
    tables = embedding_tables(corpus, vectors)
    parents = relation_masks(corpus, edges)["parent"]
    maker = CopyMaker(
        store=opened,
        corpus=corpus,
        backbones=load_backbones(home.folder, chosen),
        parents=parents,
        window=chosen.training.window_size,
        seed=chosen.evaluation.seed,
    )
    shared: dict[str, Any] = {
        "recipe": chosen.name,
        "config": chosen.evaluation,
        "training_seed": chosen.training.seed,
    }
    found = evaluate_retrieval(corpus, vectors, layers.collect(), edges, **shared)
    results = concat_results(
        [
            found,
            evaluate_lineage(corpus, tables, edges, read, **shared),
            evaluate_robustness(corpus, tables, maker.make(), parents, **shared),
        ]
    )
    return step.finish(
        results,
        config_digest=config_digest(RETRIEVAL, step.partition),
        metadata={"results": results_table(results)},
    )


@dg.asset(
    key=RECONSTRUCTION,
    partitions_def=recipes,
    ins={"splits": _SPLITS},
    deps=[MODEL],
    group_name="evaluation",
    kinds={"pytorch", "polars", "parquet"},
    owners=["team:evaluation"],
    code_version="2",
)
@retried
def reconstruction(
    context: dg.AssetExecutionContext,
    splits: pl.LazyFrame,
    home: HomeResource,
    store: StoreResource,
) -> dg.MaterializeResult[Any]:
    """Relative error of encoding and decoding held-out models, layer by layer."""
    from ws_pipeline.backbone.evaluate import reconstruct_models
    from ws_pipeline.evaluation.reconstruction import summarize_reconstruction

    step = Step.begin(context)
    chosen = recipe(step.partition)
    opened = store.open()
    corpus = read_held_out(home.folder, opened, chosen.name, splits.collect())
    held_out = corpus.filter(pl.col("split") == "test")
    window = chosen.training.window_size
    errors = {
        name: reconstruct_models(
            backbone, opened, held_out, window=window, halo=window // HALO_SHARE
        )
        for name, backbone in load_backbones(home.folder, chosen).items()
    }
    for name, frame in errors.items():
        opened.tables.write(f"evaluation/reconstruction_layers/{chosen.name}/{name}", frame)
    results = summarize_reconstruction(
        corpus,
        errors,
        recipe=chosen.name,
        config=chosen.evaluation,
        training_seed=chosen.training.seed,
    )
    return step.finish(
        results,
        config_digest=config_digest(RECONSTRUCTION, step.partition),
        metadata={"results": results_table(results), "num_held_out": held_out.height},
    )


def read_edges(store: Store, repos: pl.LazyFrame) -> pl.DataFrame:
    """The lineage graph: with the proven edges of the corpus where it was built, else claims."""
    if store.tables.exists(LINEAGE_TABLE):
        return store.tables.scan(LINEAGE_TABLE).collect()
    return lineage_edges(repos.collect())


def representations(embeddings: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The embeddings asset's table by representation, as evaluations take it."""
    return {
        str(key): part.select("hub_id", "embedding", "layers")
        for (key,), part in embeddings.group_by("representation", maintain_order=True)
    }


def results_table(results: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """The numbers over all held-out models, as Markdown."""
    shown = results.filter(
        (pl.col("slice") == "all") & ~pl.col("metric").str.ends_with("_difference")
    )
    numbers = pl.col("value", "low", "high").round(3).cast(pl.String).fill_null("")
    columns = ("target", "features", "metric", "value", "low", "high", "num_models")
    return dg.MetadataValue.md(markdown_table(shown.with_columns(numbers).select(columns)))


@dg.asset(
    key=LEADERBOARD,
    ins={
        key.path[-1]: dg.AssetIn(key, partition_mapping=dg.AllPartitionMapping())
        for key in (PROPERTIES, RETRIEVAL, RECONSTRUCTION)
    },
    # No input: a home that is older than this asset has no table of it, and a report all the same.
    deps=[dg.AssetDep(GENERATION, partition_mapping=dg.AllPartitionMapping())],
    group_name="evaluation",
    kinds={"polars", "parquet", "plotly"},
    owners=["team:evaluation"],
    code_version="1",
)
@retried
def leaderboard(  # noqa: PLR0917 - Dagster passes inputs and resources by name
    context: dg.AssetExecutionContext,
    properties: pl.LazyFrame,
    retrieval: pl.LazyFrame,
    reconstruction: pl.LazyFrame,
    home: HomeResource,
    store: StoreResource,
    mlflow: MlflowResource,
) -> dg.MaterializeResult[Any]:
    """All recipes side by side, and the report: one HTML file with plots."""
    from ws_pipeline.defs.report import gather_report
    from ws_pipeline.evaluation.atlas import ATLAS_NAME, write_atlas
    from ws_pipeline.evaluation.publication import publish_report
    from ws_pipeline.evaluation.report import write_report

    step = Step.begin(context)
    opened = store.open()
    frames = [properties, retrieval, reconstruction]
    if list(opened.tables.keys(table_key(GENERATION))):
        frames.append(load_all_partitions(opened.tables, GENERATION))
    results = pl.concat([frame.collect() for frame in frames])
    path = home.folder / "report" / "report.html"
    gathered = gather_report(home.folder, opened, results)
    atlas = path.with_name(ATLAS_NAME)
    shown = write_atlas(atlas, gathered)
    write_report(path, gathered if shown else dataclasses.replace(gathered, atlas=""))
    pages = [path, atlas] if shown else [path]
    run_id = publish_report(mlflow.uri(), mlflow.experiment, results, pages)
    return step.finish(
        results,
        config_digest=config_digest(LEADERBOARD, ""),
        metadata={
            "mlflow_run_id": run_id,
            "report": dg.MetadataValue.path(str(path)),
            **({"atlas": dg.MetadataValue.path(str(atlas))} if shown else {}),
            "results": results_table(results),
        },
    )
