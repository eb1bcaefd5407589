"""The corpus: which models of all families go in, split along their lineage.

Beside its own table the asset writes `corpus/verdicts` (one row per tokenised model, with the
reason of each that stays out) and `corpus/lineage` (the edges of the lineage graph).
"""

from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.hub import REPOS
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.io_managers import table_key
from ws_pipeline.defs.left_out import count_dropped, left_out_figure, left_out_table
from ws_pipeline.defs.resources import PolicyResource, StoreResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.step import Step, count_known, count_verdicts, markdown_table, plot_reasons
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.tokens.audit import count_corpus
from ws_pipeline.tokens.corpus import Corpus, build_corpus

SPLITS = dg.AssetKey(["corpus", "splits"])
VERDICTS_TABLE = "corpus/verdicts"
LINEAGE_TABLE = "corpus/lineage"

_ALL = dg.AllPartitionMapping()


@dg.asset(
    key=SPLITS,
    ins={
        "shards": dg.AssetIn(SHARDS, partition_mapping=_ALL),
        "layers": dg.AssetIn(LAYERS, partition_mapping=_ALL),
        "repos": dg.AssetIn(REPOS, partition_mapping=_ALL),
    },
    group_name="corpus",
    kinds={"polars", "parquet"},
    owners=["team:corpus"],
    code_version="3",  # copies and near copies stay out; shared layers tie lineages
)
@retried
def splits(  # noqa: PLR0917 - Dagster passes inputs and resources by name
    context: dg.AssetExecutionContext,
    shards: pl.LazyFrame,
    layers: pl.LazyFrame,
    repos: pl.LazyFrame,
    store: StoreResource,
    policy: PolicyResource,
) -> dg.MaterializeResult[Any]:
    """Lineage-disjoint train, val and test: a base model stays with all that descends from it.

    Copies of older models stay out, whatever their names, format or family. The split is a hash of
    the lineage's root, so it does not move when repos are added. The table is kept as an immutable
    snapshot, whose digest is what a training names.
    """
    step = Step.begin(context)
    chosen = policy.get()
    corpus = build_corpus(
        shards.collect(),
        repos.collect(),
        layers.select("hub_id", "revision", "accepted", "layers").collect(),
        splits=chosen.splits,
        policy=chosen.corpus,
    )
    frame = corpus.models
    opened = store.open()
    snapshot = opened.snapshots.create(frame)
    num_known = count_known(frame, opened.tables, table_key(SPLITS))
    opened.tables.write(VERDICTS_TABLE, corpus.verdicts)
    opened.tables.write(LINEAGE_TABLE, corpus.edges)
    ledger = Ledger(store=opened)
    for family in ledger.families():
        own = corpus.verdicts.filter(pl.col("family") == family)
        ledger.record_verdicts(family, "corpus", own)
    dropped = count_dropped(ledger)
    return step.finish(
        frame,
        config_digest=config_digest(SPLITS, "", policy=policy.name),
        data_version=snapshot[:16],
        num_processed=frame.height - num_known,
        num_reused=num_known,
        metadata={
            "snapshot": snapshot,
            "policy": policy.name,
            "num_models": frame.height,
            "num_lineages": frame["lineage_root"].n_unique(),
            "num_params": int(frame["num_params"].sum() or 0),
            **count_verdicts(corpus.verdicts),
            "num_left_out": int(dropped["num_repos"].sum()),
            **plot_reasons(dropped),
            "splits": dg.MetadataValue.md(_splits_table(frame)),
            "licences": dg.MetadataValue.md(_licences_table(count_corpus(frame))),
            "lineage": dg.MetadataValue.md(_lineage_table(corpus)),
            "left_out": dg.MetadataValue.md(left_out_table(dropped)),
            "left_out_figure": dg.MetadataValue.md(left_out_figure(dropped)),
        },
    )


def _splits_table(corpus: pl.DataFrame) -> str:
    counts = corpus.group_by("split", "family").agg(
        models=pl.len(),
        lineages=pl.col("lineage_root").n_unique(),
        parameters=pl.col("num_params").sum(),
    )
    return markdown_table(counts.sort("split", "family"))


def _licences_table(counts: pl.DataFrame) -> str:
    return markdown_table(
        counts.group_by("licence")
        .agg(models=pl.col("num_models").sum(), parameters=pl.col("num_params").sum())
        .sort("models", descending=True)
        .with_columns(pl.col("licence").replace("", "none stated"))
    )


def _lineage_table(corpus: Corpus) -> str:
    """Edges by what they rest on and what speaks against them."""
    columns = ["evidence", "relation", "contradiction"]
    if corpus.edges.is_empty():
        return "no edges"
    counts = corpus.edges.group_by(columns).agg(edges=pl.len()).sort(columns)
    return markdown_table(counts)
