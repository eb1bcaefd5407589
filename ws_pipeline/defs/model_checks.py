"""Blocking checks that read tensors: the token round trip, and the trained model.

Belongs here: what costs more than a table scan. Torch is imported when the check runs.
"""

import math
import tempfile
from pathlib import Path

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.backbone import MODEL
from ws_pipeline.defs.assets.hub import FILES
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.checks import IDENTITY, blocking_check, verdict
from ws_pipeline.defs.partitions import families, recipes
from ws_pipeline.defs.resources import HomeResource, StoreResource
from ws_pipeline.defs.runs import find_model
from ws_pipeline.storage.objects import file_sha256
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.shards import unpack_model

NUM_SAMPLED = 2
"""Models of a family that are unpacked each time: those whose hub id comes first and last."""

MAX_SAMPLED_BYTES = 256 * 1024**2
"""Larger models are not unpacked in a check; the test suite has the large ones."""


@blocking_check(
    asset=SHARDS,
    additional_ins={"files": dg.AssetIn(FILES)},
    partitions_def=families,
)
def tokens_give_back_the_exact_bytes(
    table: pl.LazyFrame, files: pl.LazyFrame, store: StoreResource
) -> dg.AssetCheckResult:
    """Unpack a sample: every restored file has the sha256 of the downloaded one."""
    opened = store.open()
    sources = files.select(*IDENTITY, files_manifest="manifest")
    small = (
        table.filter(pl.col("accepted") & (pl.col("num_bytes") <= MAX_SAMPLED_BYTES))
        .join(sources, on=IDENTITY)
        .sort("hub_id")
        .collect()
    )
    sample = pl.concat([small.head(1), small.slice(1).tail(NUM_SAMPLED - 1)])
    changed = [name for row in sample.to_dicts() for name in _changed_files(opened, row)]
    return verdict(pl.DataFrame({"file": changed}), num_unpacked=sample.height)


def _changed_files(store: Store, row: dict[str, str]) -> list[str]:
    """Files of a model that do not come back as they were."""
    before = store.manifests.read(row["files_manifest"])["files"]
    digests = {file["path"]: file["sha256"] for file in before}
    with tempfile.TemporaryDirectory() as folder:
        paths = unpack_model(store, store.manifests.read(row["manifest"]), Path(folder))
        after = {str(path.relative_to(folder)): file_sha256(path) for path in paths}
    weights = {name for name in digests if name.endswith(".safetensors")}
    return sorted(
        f"{row['repo_id']}/{name}"
        for name in weights | set(after)
        if digests.get(name) != after.get(name)
    )


@blocking_check(asset=MODEL, partitions_def=recipes)
def the_model_reloads_and_is_finite(
    context: dg.AssetCheckExecutionContext, home: HomeResource
) -> dg.AssetCheckResult:
    """The saved model loads from its folder alone and its numbers are finite."""
    import torch

    from ws_pipeline.backbone.model import Backbone

    backbone = Backbone.from_pretrained(find_model(home.folder, context.partition_key))
    parameters = list(backbone.parameters())
    finite = all(bool(torch.isfinite(parameter).all()) for parameter in parameters)
    norm = math.sqrt(sum(float(parameter.detach().square().sum()) for parameter in parameters))
    return dg.AssetCheckResult(
        passed=finite and norm > 0,
        metadata={"num_params": sum(p.numel() for p in parameters), "norm": norm},
    )


MODEL_CHECKS = [tokens_give_back_the_exact_bytes, the_model_reloads_and_is_finite]
