"""What the launcher says of a run whose code server answers, is away, or does not know it."""

import json
import socket
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._daemon.controller import RELOAD_WORKSPACE_INTERVAL
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionResult
from dagster._serdes import serialize_value

from ws_pipeline.defs.run_launcher import SETTLING_SECONDS, WatchedRunLauncher


def make_run(**info: object) -> dg.DagsterRun:
    tags = {GRPC_INFO_TAG: json.dumps(info)} if info else {}
    return dg.DagsterRun(job_name="crawl_family", run_id="a-run", tags=tags)


def ask(**info: object) -> WorkerStatus:
    launcher = WatchedRunLauncher(settling_seconds=0.0)
    return launcher.check_run_worker_health(make_run(**info)).status


def test_dagster_is_told_that_it_may_ask() -> None:
    assert WatchedRunLauncher().supports_check_run_worker_health


def test_a_run_that_was_not_launched_yet_is_left_alone() -> None:
    assert ask() == WorkerStatus.RUNNING


def test_a_code_server_that_is_being_restarted_says_nothing_about_its_runs() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert ask(host="127.0.0.1", port=closed.getsockname()[1]) == WorkerStatus.RUNNING


def test_a_socket_that_is_gone_never_comes_back(tmp_path: Path) -> None:
    assert ask(host="localhost", socket=str(tmp_path / "gone")) == WorkerStatus.NOT_FOUND


@pytest.mark.parametrize("knows", [True, False])
def test_a_run_is_there_if_its_code_server_knows_it(
    knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = serialize_value(CanCancelExecutionResult(can_cancel=knows))
    monkeypatch.setattr(DagsterGrpcClient, "can_cancel_execution", lambda *_, **__: answer)
    expected = WorkerStatus.RUNNING if knows else WorkerStatus.NOT_FOUND
    assert ask(host="127.0.0.1", port=4000) == expected


def test_a_run_is_gone_when_its_server_has_been_back_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon retries once, and only a location that it has seen come back takes the run."""
    answer = serialize_value(CanCancelExecutionResult(can_cancel=False))
    monkeypatch.setattr(DagsterGrpcClient, "can_cancel_execution", lambda *_, **__: answer)
    run, now = make_run(host="127.0.0.1", port=4000), [1000.0]
    monkeypatch.setattr("ws_pipeline.defs.run_launcher.time.monotonic", lambda: now[0])
    launcher = WatchedRunLauncher()
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    now[0] += SETTLING_SECONDS - 1
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    now[0] += 1
    assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND
    assert SETTLING_SECONDS > RELOAD_WORKSPACE_INTERVAL
