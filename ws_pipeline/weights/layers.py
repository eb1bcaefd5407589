"""The stage ``weights/layers``: every downloaded repo read once, measured and packed. Does I/O.

One row per repo revision. The verdict follows from the bytes alone, so it is stored in a create-
only manifest and never computed twice; it names the blob that holds the weights in token order.
Models go in groups: the blobs of a group are flushed together, then its manifests are, and small
models of one architecture are packed in one go (``populations``). Not here: the pass over one model
(``packing``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.errors import Reason, RefusedError, WeightsError
from ws_pipeline.hub.repo import KEY_SCHEMA
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.store import Store
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.model_plan import plan_model
from ws_pipeline.weights.packing import describe_sources, write_shard
from ws_pipeline.weights.plan import LayerPlan, Treatment
from ws_pipeline.weights.populations import is_small, stack_tensors, write_shards
from ws_pipeline.weights.records import LAYER_STRUCT, layer_to_record, statistics_of_row

LAYERS_STAGE = "weights-layers"
LAYERS_VERSION = "4"
"""Raise it whenever a plan, a statistic or a shard changes for the same bytes."""

LAYERS_SCHEMA: dict[str, pl.DataType] = {
    **KEY_SCHEMA,
    "plan_manifest": pl.String(),
    "shard_sha256": pl.String(),
    "num_shard_bytes": pl.Int64(),
    "num_params": pl.Int64(),
    "num_bytes": pl.Int64(),
    "num_tokenised_bytes": pl.Int64(),
    "num_carried_bytes": pl.Int64(),
    "num_excluded_bytes": pl.Int64(),
    "layers": pl.List(LAYER_STRUCT),
}

PASSING_REASONS = frozenset({Reason.MISSING_INPUT, Reason.FILE_TOO_LARGE})
"""Refusals that do not follow from the bytes but from what this machine has: a row, no manifest."""

GROUP_MODELS = 256
"""Models whose verdicts become durable together: a kill loses at most those."""

GROUP_BYTES = 64 * 2**20
"""Weights after which a group ends: what is waiting in memory, and work that a kill may lose."""


def plan_family(store: Store, files: pl.DataFrame) -> pl.DataFrame:
    """Plan, measure and pack every accepted repo of a family's ``hub/files`` table.

    Args:
        store: Where blobs and manifests are.
        files: Stage table with ``hub_id, repo_id, revision, accepted, manifest``.

    Returns:
        A frame of LAYERS_SCHEMA, one row per accepted row of ``files``, in its order.
    """
    rows: list[dict[str, Any]] = []
    group = _Group(store)
    for row in files.filter("accepted").iter_rows(named=True):
        group.add(row)
        if len(group.jobs) >= GROUP_MODELS or group.num_bytes >= GROUP_BYTES:
            rows += group.finish()
            group = _Group(store)
    return pl.DataFrame(rows + group.finish(), schema=LAYERS_SCHEMA)


def open_repo(store: Store, files_manifest: Mapping[str, Any]) -> Checkpoint:
    """Open the model that a ``hub/files`` manifest describes from the store's blobs."""
    files: list[tuple[str, Path]] = [
        (file["path"], store.blobs.local_path(file["sha256"])) for file in files_manifest["files"]
    ]
    return Checkpoint.open_files(files)


@dataclass(kw_only=True, slots=True)
class _Job:
    """One model of a group.

    Attributes:
        row: Of ``hub/files``.
        key: Of its manifest.
        verdict: Payload of its manifest; empty while it waits for the group's end.
        shard: Its shard, if that is to be stored with the group.
    """

    row: Mapping[str, Any]
    key: str
    verdict: dict[str, Any] = field(default_factory=dict)
    shard: bytes | None = None
    reused: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether the verdict gets a manifest."""
        return self.verdict["reason"] not in PASSING_REASONS

    def accept(self, payload: Mapping[str, Any]) -> None:
        """Note what was made of the model."""
        verdict = {"accepted": True, "reason": "", "detail": ""}
        self.verdict = {**self._identity(), **verdict, **payload}

    def refuse(self, error: RefusedError) -> None:
        """Note why the model is refused."""
        refusal = {"accepted": False, "reason": str(error.reason), "detail": str(error)}
        self.verdict = {**self._identity(), **refusal, "layers": []}

    def table_row(self) -> dict[str, Any]:
        """Return the row of the stage's table."""
        shard = self.verdict.get("shard", {})
        return {name: self.verdict.get(name) for name in LAYERS_SCHEMA} | {
            "repo_id": self.row["repo_id"],  # it may have been renamed since the verdict
            "reused": self.reused,
            "plan_manifest": self.key if self.is_kept else None,
            "shard_sha256": shard.get("sha256"),
            "num_shard_bytes": shard.get("num_bytes"),
        }

    def _identity(self) -> dict[str, Any]:
        names = ("hub_id", "repo_id", "revision")
        return {name: self.row[name] for name in names} | {"files_manifest": self.row["manifest"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    """A model in memory that may be packed with others."""

    job: _Job
    checkpoint: Checkpoint
    plan: LayerPlan


class _Group:
    """Models that become durable together."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self.jobs: list[_Job] = []
        self.num_bytes = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Judge one model, or keep it to be packed with others."""
        key = manifest_key(LAYERS_STAGE, row["hub_id"], row["revision"], LAYERS_VERSION)
        job = _Job(row=row, key=key)
        self.jobs.append(job)
        verdict = self._store.manifests.read_if_exists(key)
        # A verdict whose shard is gone is none: the shard is made again, the same as before.
        if verdict is not None and self._has_shard(verdict):
            job.verdict, job.reused = verdict, True
            return
        try:
            self._open(job)
        except RefusedError as error:
            job.refuse(error)

    def finish(self) -> list[dict[str, Any]]:
        """Pack what waits, make everything durable, and return the rows."""
        for models in self._alike():
            if len(models) > 1 and is_small(models[0].plan):
                _pack_together(models)
            else:
                for model in models:
                    _pack_alone(model)
        packed = [(job, job.shard) for job in self.jobs if job.shard is not None]
        blobs = self._store.blobs.put_many([shard for _, shard in packed])
        for (job, _), blob in zip(packed, blobs, strict=True):
            job.verdict["shard"] = {"sha256": blob.sha256, "num_bytes": blob.num_bytes}
        self._store.manifests.create_many(
            {job.key: job.verdict for job in self.jobs if job.is_kept and not job.reused}
        )
        return [job.table_row() for job in self.jobs]

    def _has_shard(self, verdict: Mapping[str, Any]) -> bool:
        return not verdict["accepted"] or self._store.blobs.exists(verdict["shard"]["sha256"])

    def _open(self, job: _Job) -> None:
        files = self._store.manifests.read(job.row["manifest"])
        checkpoint = open_repo(self._store, files)
        self.num_bytes += checkpoint.data_bytes
        plan = plan_model(checkpoint)
        plan.require_unpacked()
        _require_tokens(plan)
        if len(checkpoint.files) == 1 and checkpoint.files[0].content is not None:
            self._waiting.append(_Waiting(job=job, checkpoint=checkpoint, plan=plan))
            return
        with self._store.blobs.writer(checkpoint.data_bytes) as out:
            statistics = write_shard(checkpoint, plan, out)
        records = [
            layer_to_record(layer, measured)
            for layer, measured in zip(plan.layers, statistics, strict=True)
        ]
        shard = {"shard": {"sha256": out.sha256, "num_bytes": out.num_bytes}}
        job.accept(_describe(checkpoint, plan, records) | shard)

    def _alike(self) -> Iterable[list[_Waiting]]:
        """Return the waiting models, those of one plan together."""
        groups: dict[int, list[_Waiting]] = {}
        for model in self._waiting:
            # Models of one architecture share the plan itself; one with a tied copy has its own.
            groups.setdefault(id(model.plan), []).append(model)
        return groups.values()


def _pack_alone(model: _Waiting) -> None:
    out = BytesIO()
    try:
        statistics = write_shard(model.checkpoint, model.plan, out)
    except RefusedError as error:
        model.job.refuse(error)
        return
    records = [
        layer_to_record(layer, measured)
        for layer, measured in zip(model.plan.layers, statistics, strict=True)
    ]
    model.job.shard = out.getvalue()
    model.job.accept(_describe(model.checkpoint, model.plan, records))


def _pack_together(models: Sequence[_Waiting]) -> None:
    plan, infos = models[0].plan, models[0].checkpoint.tensors
    tensors = stack_tensors([model.checkpoint for model in models])
    shards, packed = write_shards(plan, tensors, infos)
    templates = [layer_to_record(layer, None) for layer in plan.layers]
    places = [layer.index for layer in plan.tokenised]
    for model, shard, rows, is_fit in zip(
        models, shards, packed.statistics.tolist(), packed.is_fit.tolist(), strict=True
    ):
        if not is_fit:
            _pack_alone(model)  # which says what is wrong
            continue
        records = list(templates)
        for place, row in zip(places, rows, strict=True):
            records[place] = templates[place] | statistics_of_row(row)
        model.job.shard = shard
        model.job.accept(_describe(model.checkpoint, plan, records))


def _require_tokens(plan: LayerPlan) -> None:
    if not plan.tokenised:
        raise WeightsError(
            f"None of the {len(plan.layers)} tensors holds floating-point weights.",
            reason=Reason.NOTHING_TO_TOKENIZE,
        )


def _describe(
    checkpoint: Checkpoint, plan: LayerPlan, records: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what a manifest says of an accepted model, but for its shard."""
    num_bytes = plan.account()
    return {
        "num_params": plan.num_params,
        "num_bytes": plan.data_bytes,
        "num_tokenised_bytes": num_bytes[Treatment.TOKENISED],
        "num_carried_bytes": num_bytes[Treatment.CARRIED],
        "num_excluded_bytes": num_bytes[Treatment.EXCLUDED],
        "sources": describe_sources(checkpoint),
        "layers": records,
    }
