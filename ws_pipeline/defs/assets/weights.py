"""Packed weights and layer plans: what becomes of every tensor of a model, by family."""

from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.hub import FILES
from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.partitions import families
from ws_pipeline.defs.resources import StoreResource
from ws_pipeline.defs.retries import retried
from ws_pipeline.defs.step import Step
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.weights.layers import LAYERS_VERSION, plan_family

LAYERS = dg.AssetKey(["weights", "layers"])


@dg.asset(
    key=LAYERS,
    partitions_def=families,
    ins={"files": dg.AssetIn(FILES)},
    group_name="weights",
    kinds={"numpy", "safetensors", "parquet"},
    owners=["team:corpus"],
    code_version=LAYERS_VERSION,
)
@retried
def layers(
    context: dg.AssetExecutionContext, files: pl.LazyFrame, store: StoreResource
) -> dg.MaterializeResult[Any]:
    """Each model read once: roles, statistics, and all its numbers packed in token order.

    Every byte is tokenised, carried verbatim, or excluded with a reason; models with NaN or
    infinite weights end here. The statistics (mean, std, quantiles) are what normalises a layer,
    and the baseline s(W).
    """
    step = Step.begin(context)
    opened = store.open()
    frame = plan_family(opened, files.collect())
    Ledger(store=opened).record_verdicts(step.partition, "layers", frame)
    sums = {
        name: int(frame[name].sum() or 0)
        for name in ("num_params", "num_tokenised_bytes", "num_carried_bytes", "num_excluded_bytes")
    }
    return step.finish(frame, config_digest=config_digest(LAYERS, step.partition), metadata=sums)
