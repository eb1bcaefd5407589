"""The persistent Dagster instance of a home, and running assets on it in this process.

Belongs here: `home/dagster` and one call that executes a selection. Does not: what to select. Does
I/O.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from ws_pipeline.backbone.threads import let_threads_sleep
from ws_pipeline.defs.abandoned import driver_tags, end_abandoned_runs
from ws_pipeline.defs.assets.hub import FILES_POOL
from ws_pipeline.defs.failures import (
    Failure,
    describe_run_failure,
    find_failures,
    raise_interrupt,
)

DAGSTER_YAML = """\
# Written once by ws-pipeline; yours to change.
telemetry: {enabled: false}
nux: {enabled: false}
# Steps that ask the hub share the pool `hub`; `dagster instance concurrency set hub N` changes it.
# Downloads are in the pool `files`, which has one place: its steps share the budget of disk.
concurrency:
  pools: {default_limit: 4, granularity: op}
  runs:
    max_concurrent_runs: 4
    tag_concurrency_limits:
      # One run at a time of a family (or recipe, or zoo): its tables have one writer.
      - {key: dagster/partition, value: {applyLimitPerUniqueValue: true}, limit: 1}
# A killed run leaves its place in a pool taken; the daemon gives it back.
run_monitoring: {enabled: true, max_resume_run_attempts: 0, free_slots_after_run_end_seconds: 300}
sensors: {use_threads: true, num_workers: 4}
retention:
  sensor: {purge_after_days: {skipped: 3, success: 30, failure: 90, started: -1}}
"""
"""SQLite and everything else by default."""

POOL_LIMITS = {FILES_POOL: 1}
"""Limits other than the default, which Dagster keeps in its database and not in dagster.yaml."""

# A step's output goes to the terminal as it comes, not through a file and a `tail` process for
# each of its two streams, which also costs 0.1 s a step.
_QUIET = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}


@contextmanager
def open_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """Open the home's instance for runs in this process."""
    folder = prepare_instance(home)
    let_threads_sleep()  # zoos, embeddings and evaluations use torch in this process
    with quiet_dagster():
        ref = InstanceRef.from_dir(str(folder), overrides=_QUIET)
        with dg.DagsterInstance.from_ref(ref) as instance:
            limit_pools(instance)
            end_abandoned_runs(instance)
            yield instance


def prepare_instance(home: Path) -> Path:
    """Make the folder that DAGSTER_HOME names."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists():
        config.write_text(DAGSTER_YAML)
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            limit_pools(instance)
    return folder


def limit_pools(instance: dg.DagsterInstance) -> None:
    """Give the pools their limits; one that a user has set stays."""
    storage = instance.event_log_storage
    known = {pool.name for pool in storage.get_pool_limits() if not pool.from_default}
    for name, limit in POOL_LIMITS.items():
        if name not in known:
            storage.set_concurrency_slots(name, limit)


@contextmanager
def quiet_dagster() -> Iterator[None]:
    """Keep Dagster's beta and preview notices, and its chat below errors, off the terminal."""
    logger = logging.getLogger("dagster")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=dg.BetaWarning)
            warnings.simplefilter("ignore", category=dg.PreviewWarning)
            yield
    finally:
        logger.setLevel(before)


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetRun:
    """What one asset partition did in one run.

    Attributes:
        made: Whether it was materialised and its blocking checks passed.
        failure: What stopped it; None where nothing did.
        metadata: Of the materialisation, as plain values.
        seconds: Of its body; checks and the run's own cost not counted.
    """

    asset_key: dg.AssetKey
    partition: str
    made: bool
    failure: Failure | None
    metadata: Mapping[str, Any]
    seconds: float


def execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job_name: str,
    asset_keys: Iterable[dg.AssetKey],
    *,
    partition: str = "",
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[AssetRun]:
    """Materialise some assets of a job, with their checks, in one run in this process."""
    keys = list(asset_keys)
    result = definitions.resolve_job_def(job_name).execute_in_process(
        instance=instance,
        asset_selection=keys,
        partition_key=partition or None,
        raise_on_error=False,
        tags={**driver_tags(), **(tags or {})},
        run_config={
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            **(run_config or {}),
        },
    )
    raise_interrupt(result)
    made = {
        event.asset_key: event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    }
    failures = find_failures(result)
    return [
        AssetRun(
            asset_key=key,
            partition=partition,
            made=key in made and key not in failures,
            failure=failures.get(key) or (None if key in made else describe_run_failure(result)),
            metadata=(values := _plain(made[key].metadata) if key in made else {}),
            seconds=float(values.get("seconds", 0.0)),
        )
        for key in keys
    ]


def _plain(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    return {name: value.value for name, value in metadata.items()}
