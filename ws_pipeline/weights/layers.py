"""The stage ``weights/layers``: a layer plan with statistics for every downloaded repo. Does I/O.

One row per repo revision. The verdict follows from the bytes alone, so it is stored in a create-
only manifest and never computed twice. Weights are read once, one layer at a time.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ws_pipeline.errors import Reason, RefusedError, WeightsError
from ws_pipeline.hub.repo import KEY_SCHEMA
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.dtypes import is_weight_dtype, widen
from ws_pipeline.weights.header import TensorInfo
from ws_pipeline.weights.plan import (
    Layer,
    LayerPlan,
    Treatment,
    carry_layer,
    plan_layers,
    tie_layer,
)
from ws_pipeline.weights.records import LAYER_STRUCT, layer_to_record
from ws_pipeline.weights.role_rules import Role
from ws_pipeline.weights.statistics import LayerStatistics, measure_layer
from ws_pipeline.weights.values import TensorValues

LAYERS_STAGE = "weights-layers"
LAYERS_VERSION = "2"
"""Raise it whenever a plan or a statistic changes for the same bytes."""

LAYERS_SCHEMA: dict[str, pl.DataType] = {
    **KEY_SCHEMA,
    "plan_manifest": pl.String(),
    "num_params": pl.Int64(),
    "num_bytes": pl.Int64(),
    "num_tokenised_bytes": pl.Int64(),
    "num_carried_bytes": pl.Int64(),
    "num_excluded_bytes": pl.Int64(),
    "layers": pl.List(LAYER_STRUCT),
}

PASSING_REASONS = frozenset({Reason.MISSING_INPUT, Reason.FILE_TOO_LARGE})
"""Refusals that do not follow from the bytes but from what this machine has: a row, no manifest."""

MAX_PLAN_KEPT = 1000
"""Plans of more tensors than this are not kept for the next model: they would fill memory."""

_TIE_ROLES = frozenset({Role.EMBEDDING, Role.LINEAR})


def plan_family(store: Store, files: pl.DataFrame) -> pl.DataFrame:
    """Plan every accepted repo of a family's ``hub/files`` table.

    Args:
        store: Where blobs and manifests are.
        files: Stage table with ``hub_id, repo_id, revision, accepted, manifest``.

    Returns:
        A frame of LAYERS_SCHEMA, one row per accepted row of ``files``, in its order.
    """
    rows = [_plan_row(store, row) for row in files.filter("accepted").iter_rows(named=True)]
    return pl.DataFrame(rows, schema=LAYERS_SCHEMA)


def plan_checkpoint(
    checkpoint: Checkpoint, *, carry_non_finite: bool = False
) -> tuple[LayerPlan, tuple[LayerStatistics | None, ...]]:
    """Plan one model and measure its tokenised layers; the statistics align with the plan's layers.

    Args:
        checkpoint: The model.
        carry_non_finite: Carry a layer that holds NaN or infinity verbatim, with that reason,
            instead of refusing the model; take packed models too. Packing needs that (tables of
            energies use infinity on purpose); a corpus to learn from does not.

    Raises:
        WeightsError: ``non_finite_weights`` or ``quantized``.
    """
    config_text = json.dumps(checkpoint.config, sort_keys=True)
    tensors = tuple(checkpoint.tensors.values())
    plan_once = _plan_once if len(tensors) <= MAX_PLAN_KEPT else _plan_once.__wrapped__
    plan = plan_once(tensors, config_text)
    if not carry_non_finite:
        plan.require_unpacked()
    for name, tied_to in find_tied_layers(checkpoint, plan).items():
        plan = tie_layer(plan, name, tied_to)
    statistics: list[LayerStatistics | None] = []
    for layer in plan.layers:
        try:
            statistics.append(_measure(checkpoint, layer))
        except WeightsError as error:
            if not carry_non_finite or error.reason is not Reason.NON_FINITE_WEIGHTS:
                raise
            plan = carry_layer(plan, layer.name, error.reason)
            statistics.append(None)
    plan.account()
    return plan, tuple(statistics)


@lru_cache(maxsize=64)
def _plan_once(tensors: tuple[TensorInfo, ...], config_text: str) -> LayerPlan:
    """Plan tensors that may come again: the models of a population share their plan."""
    return plan_layers(tensors, json.loads(config_text))


def find_tied_layers(checkpoint: Checkpoint, plan: LayerPlan) -> dict[str, str]:
    """Return {name: tensor with the same bytes} for output heads that repeat an input embedding.

    Only pairs of equal shape and dtype with an embedding in them are compared, so few are read.
    """
    tied: dict[str, str] = {}
    candidates = [
        layer for layer in plan.tokenised if layer.role in _TIE_ROLES and not layer.bias_name
    ]
    kept = [layer for layer in candidates if layer.role is Role.EMBEDDING]
    for layer in candidates:
        for original in kept:
            is_pair = layer.name != original.name and original.name not in tied
            if not is_pair or (layer.shape, layer.dtype) != (original.shape, original.dtype):
                continue
            # Of two embeddings the later one is the copy; a linear always is.
            if layer.role is Role.EMBEDDING and layer.index < original.index:
                continue
            if _equal_bytes(checkpoint, layer.name, original.name):
                tied[layer.name] = original.name
                break
    return tied


def open_repo(store: Store, files_manifest: Mapping[str, Any]) -> Checkpoint:
    """Open the model that a ``hub/files`` manifest describes from the store's blobs."""
    files: list[tuple[str, Path]] = [
        (file["path"], store.blobs.local_path(file["sha256"])) for file in files_manifest["files"]
    ]
    return Checkpoint.open_files(files)


def _plan_row(store: Store, row: Mapping[str, Any]) -> dict[str, Any]:
    key = manifest_key(LAYERS_STAGE, row["hub_id"], row["revision"], LAYERS_VERSION)
    verdict = store.manifests.read_if_exists(key)
    reused = verdict is not None
    if verdict is None:
        verdict = _judge(store, row)
        if verdict["reason"] not in PASSING_REASONS:
            store.manifests.create(key, verdict)
    stored_key = None if verdict["reason"] in PASSING_REASONS else key
    payload = {name: verdict.get(name) for name in LAYERS_SCHEMA}
    # The repo may have been renamed since: the row's own name counts.
    return payload | {"repo_id": row["repo_id"], "reused": reused, "plan_manifest": stored_key}


def _judge(store: Store, row: Mapping[str, Any]) -> dict[str, Any]:
    identity = {"hub_id": row["hub_id"], "repo_id": row["repo_id"], "revision": row["revision"]}
    identity["files_manifest"] = row["manifest"]
    try:
        payload = _plan_payload(open_repo(store, store.manifests.read(row["manifest"])))
    except RefusedError as error:
        refusal = {"accepted": False, "reason": str(error.reason), "detail": str(error)}
        return identity | refusal | {"layers": []}
    return identity | {"accepted": True, "reason": "", "detail": ""} | payload


def _plan_payload(checkpoint: Checkpoint) -> dict[str, Any]:
    plan, statistics = plan_checkpoint(checkpoint)
    if not plan.tokenised:
        raise WeightsError(
            f"None of the {len(plan.layers)} tensors holds floating-point weights.",
            reason=Reason.NOTHING_TO_TOKENIZE,
        )
    num_bytes = plan.account()
    return {
        "num_params": plan.num_params,
        "num_bytes": plan.data_bytes,
        "num_tokenised_bytes": num_bytes[Treatment.TOKENISED],
        "num_carried_bytes": num_bytes[Treatment.CARRIED],
        "num_excluded_bytes": num_bytes[Treatment.EXCLUDED],
        "layers": [
            layer_to_record(layer, measured)
            for layer, measured in zip(plan.layers, statistics, strict=True)
        ],
    }


def _measure(checkpoint: Checkpoint, layer: Layer) -> LayerStatistics | None:
    if layer.treatment is Treatment.TOKENISED:
        biases = TensorValues(checkpoint, layer.bias_name) if layer.bias_name else None
        return measure_layer(layer.name, TensorValues(checkpoint, layer.name), biases)
    is_running = layer.role in {Role.BATCHNORM_MEAN, Role.BATCHNORM_VAR}
    if not is_running or not is_weight_dtype(layer.dtype):
        return None
    # Carried, but a network with NaN in them computes NaN all the same.
    if not np.isfinite(widen(checkpoint.read_flat(layer.name))).all():
        raise WeightsError(
            f"Running statistics must be finite; {layer.name} holds NaN or infinity.",
            reason=Reason.NON_FINITE_WEIGHTS,
        )
    return None


def _equal_bytes(checkpoint: Checkpoint, left: str, right: str) -> bool:
    chunks = zip(
        TensorValues(checkpoint, left).chunks(),
        TensorValues(checkpoint, right).chunks(),
        strict=True,
    )
    return all(np.array_equal(one.view(np.uint8), other.view(np.uint8)) for one, other in chunks)
