"""Crawls of a real server that fails as hubs do: what may pass is tried again, the rest not."""

import functools
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.events import DagsterEventType

from ws_pipeline.defs import resources, retries
from ws_pipeline.defs.abandoned import driver_tags
from ws_pipeline.defs.assets.hub import REPOS, repos
from ws_pipeline.defs.build import ASSETS, default_resources
from ws_pipeline.defs.io_managers import ParquetIOManager
from ws_pipeline.defs.partitions import families
from ws_pipeline.defs.resources import HomeResource, StoreResource
from ws_pipeline.defs.retries import FAILURE_TAG, MAX_RETRIES, is_transient, retried
from ws_pipeline.errors import (
    BusyError,
    ConfigError,
    ManifestConflictError,
    NoSpaceError,
    StorageError,
    WsPipelineError,
)
from ws_pipeline.hub.connection import connect_remote
from ws_pipeline.hub.retries import RetryPolicy
from ws_pipeline.storage import s3
from ws_pipeline.storage.s3 import S3Folder
from ws_pipeline_tests.defs.scripted_server import serve_statuses
from ws_pipeline_tests.storage.s3_server import free_ports


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request a try, and no time between tries."""
    once = functools.partial(connect_remote, retries=RetryPolicy(max_attempts=1))
    monkeypatch.setattr(resources, "connect_remote", once)
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)


def crawl(
    home: Path, endpoint: str, instance: dg.DagsterInstance, tags: Mapping[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions(str(families.name), ["mlp"])
    return dg.materialize(
        [repos],
        selection=[REPOS],
        partition_key="mlp",
        instance=instance,
        resources=default_resources(home=str(home), endpoint=endpoint),
        tags=dict(tags or {}),
        raise_on_error=False,
    )


def count_retries(result: dg.ExecuteInProcessResult) -> int:
    return sum(e.event_type == DagsterEventType.STEP_UP_FOR_RETRY for e in result.all_events)


def verdict(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """What a person sees at the failed step."""
    data = result.failure_data_for_node("hub__repos")
    assert data is not None
    assert data.user_failure_data is not None
    return {name: value.value for name, value in data.user_failure_data.metadata.items()}


def tag(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str | None:
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return run.tags.get(FAILURE_TAG)


def test_a_hub_that_comes_back_is_asked_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with serve_statuses(503, 429, 200) as server:
        result = crawl(tmp_path, server.url, instance)
    assert result.success
    assert count_retries(result) == 2
    assert len(server.paths) == 3
    assert tag(instance, result) == "transient:unreachable"


def test_a_hub_that_stays_away_is_given_up_and_said_to_be_transient(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with serve_statuses(503) as server:
        result = crawl(tmp_path, server.url, instance)
    assert not result.success
    assert len(server.paths) == MAX_RETRIES + 1
    expected = {"reason": "unreachable", "failure": "transient", "num_tries": MAX_RETRIES + 1}
    assert verdict(result) == expected


def test_a_refused_connection_is_transient(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    (port,) = free_ports(1)
    result = crawl(tmp_path, f"http://127.0.0.1:{port}", instance)
    assert count_retries(result) == MAX_RETRIES
    assert verdict(result)["failure"] == "transient"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "private"), (403, "private"), (404, "not_found"), (418, "unreachable")],
)
def test_a_refusal_is_permanent_and_asked_once(
    tmp_path: Path, instance: dg.DagsterInstance, status: int, reason: str
) -> None:
    with serve_statuses(status, 200) as server:
        result = crawl(tmp_path, server.url, instance)
    assert not result.success
    assert len(server.paths) == 1
    assert verdict(result) == {"reason": reason, "failure": "permanent", "num_tries": 1}
    assert tag(instance, result) == f"permanent:{reason}"


def test_a_run_with_a_person_at_it_is_not_tried_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with serve_statuses(503, 200) as server:
        result = crawl(tmp_path, server.url, instance, tags=driver_tags())
    assert len(server.paths) == 1
    assert verdict(result) == {"reason": "unreachable", "failure": "transient", "num_tries": 1}


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (503, "SlowDown", True),
        (500, "InternalError", True),
        (403, "AccessDenied", False),
        (404, "NoSuchKey", False),
    ],
)
def test_an_object_store_is_judged_by_its_answer(status: int, code: str, expected: bool) -> None:
    options = {"key": "k", "secret": "s", "config_kwargs": {"retries": {"max_attempts": 0}}}
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    with serve_statuses(status, body=body) as server:
        folder = S3Folder.open("s3://bucket/store", {**options, "endpoint_url": server.url})
        with pytest.raises(WsPipelineError) as raised:
            folder.read("manifests/x.json")
    assert is_transient(raised.value) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BusyError("waited in vain"), True),
        (NoSpaceError("the disk is full"), True),
        (ManifestConflictError("another content"), False),
        (StorageError("a column must not hold nulls"), False),
        (ConfigError("num_steps must be at least 1"), False),
    ],
)
def test_an_error_says_whether_it_may_pass(error: WsPipelineError, expected: bool) -> None:
    assert is_transient(error) == expected


def test_a_bug_is_not_repeated_and_stays_as_it_is(instance: dg.DagsterInstance) -> None:
    tries = []

    @dg.asset
    @retried
    def broken(context: dg.AssetExecutionContext) -> None:
        tries.append(context.retry_number)
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        dg.materialize([broken], instance=instance)
    assert tries == [0]


def test_a_table_that_cannot_be_stored_is_tried_again(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setattr(s3, "MAX_ATTEMPTS", 1)

    @dg.asset
    def table() -> pl.DataFrame:
        return pl.DataFrame({"a": [1]})

    store = StoreResource(home=HomeResource(path=str(tmp_path)), root="s3://bucket/store")
    result = dg.materialize(
        [table],
        instance=instance,
        resources={"io_manager": ParquetIOManager(store=store)},
        raise_on_error=False,
    )
    assert count_retries(result) == MAX_RETRIES
    assert tag(instance, result) == "transient:unreachable"


def test_every_asset_is_judged() -> None:
    names = {asset.node_def.name for asset in ASSETS}
    judged = {
        asset.node_def.name
        for asset in ASSETS
        if hasattr(asset.op.compute_fn.decorated_fn, "__wrapped__")  # type: ignore[union-attr]
    }
    assert judged == names
