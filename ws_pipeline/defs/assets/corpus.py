"""The corpus: accepted models of all families, split along their lineage."""

from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.hub import REPOS
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.io_managers import table_key
from ws_pipeline.defs.resources import PolicyResource, StoreResource
from ws_pipeline.defs.step import Step, count_known, markdown_table
from ws_pipeline.tokens.corpus import audit_corpus, build_corpus

SPLITS = dg.AssetKey(["corpus", "splits"])


@dg.asset(
    key=SPLITS,
    ins={
        "shards": dg.AssetIn(SHARDS, partition_mapping=dg.AllPartitionMapping()),
        "repos": dg.AssetIn(REPOS, partition_mapping=dg.AllPartitionMapping()),
    },
    group_name="corpus",
    kinds={"polars", "parquet"},
    owners=["team:corpus"],
    code_version="2",  # a lineage is named by its base
)
def splits(
    context: dg.AssetExecutionContext,
    shards: pl.LazyFrame,
    repos: pl.LazyFrame,
    store: StoreResource,
    policy: PolicyResource,
) -> dg.MaterializeResult[Any]:
    """Lineage-disjoint train, val and test: a base model stays with all that descends from it.

    The split is a hash of the lineage's root, so it does not move when repos are added. The table
    is kept as an immutable snapshot, whose digest is what a training names.
    """
    step = Step.begin(context)
    frame = build_corpus(shards.collect(), repos.collect(), policy.get().splits)
    opened = store.open()
    snapshot = opened.snapshots.create(frame)
    num_known = count_known(frame, opened.tables, table_key(SPLITS))
    audit = audit_corpus(frame)
    return step.finish(
        frame,
        config_digest=config_digest(SPLITS, "", policy=policy.recipe),
        data_version=snapshot[:16],
        num_processed=frame.height - num_known,
        num_reused=num_known,
        metadata={
            "snapshot": snapshot,
            "policy": policy.recipe,
            "num_models": frame.height,
            "num_lineages": frame["lineage_root"].n_unique(),
            "num_params": int(frame["num_params"].sum() or 0),
            "num_shared_lineages": audit.num_shared_lineages,
            "num_shared_shards": audit.num_shared_shards,
            "splits": dg.MetadataValue.md(_splits_table(frame)),
            "licences": dg.MetadataValue.md(_licences_table(audit.counts)),
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
