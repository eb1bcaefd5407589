"""Token shards: where each layer of a model lies among its packed weights, by family."""

from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.partitions import families
from ws_pipeline.defs.resources import StoreResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.step import Step
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.tokens.shards import SHARDS_VERSION, pack_family

SHARDS = dg.AssetKey(["tokens", "shards"])


@dg.asset(
    key=SHARDS,
    partitions_def=families,
    ins={"layers": dg.AssetIn(LAYERS)},
    group_name="tokens",
    kinds={"parquet"},
    owners=["team:corpus"],
    code_version=SHARDS_VERSION,
)
@retried
def shards(
    context: dg.AssetExecutionContext, layers: pl.LazyFrame, store: StoreResource
) -> dg.MaterializeResult[Any]:
    """The layer table over the packed weights; tokens, mask and positions follow by arithmetic.

    No weight is read: ``weights/layers`` packed them in its pass. A shard is independent of any
    recipe: token size and layout are a view of it.
    """
    step = Step.begin(context)
    opened = store.open()
    frame = pack_family(opened, layers.collect())
    Ledger(store=opened).record_verdicts(step.partition, "shards", frame)
    sums = {name: int(frame[name].sum() or 0) for name in ("num_params", "num_bytes")}
    return step.finish(frame, config_digest=config_digest(SHARDS, step.partition), metadata=sums)
