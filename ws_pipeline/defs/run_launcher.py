"""Dagster's default run launcher, and whether a run's worker is still there.

Runs are processes of the code server. When one dies alone, the code server reports it. When the
code server dies with it (a container that was killed, a host that went down), Dagster 1.13 never
asks again: the run stands as started for ever and keeps its family's one place. This launcher lets
the daemon's run monitoring ask the code server that started a run whether it knows it; one that
does not is marked as failed, and run again. That a worker never outlives its code server, so that
no run has two, is `defs.worker`'s part. Talks gRPC.

Belongs here: the question. Does not: how runs are started or ended (`DefaultRunLauncher`), or what
happens then (`run_monitoring` and `run_retries` in dagster.yaml).
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

ASK_SECONDS = 10


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server, and can say whether they are still there."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes; Dagster asks before `check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that started a run.

        One that does not answer is being restarted: then nothing is known, and the run keeps its
        status until the server is back. A socket that is gone never comes back.
        """
        info: dict[str, Any] = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
        if not info:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the run names no code server")
        socket = info.get("socket")
        if socket and not Path(socket).exists():
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its code server has ended")
        client = DagsterGrpcClient(
            host=str(info.get("host", "localhost")),
            port=info.get("port"),
            socket=socket,
            use_ssl=bool(info.get("use_ssl", False)),
        )
        try:
            answer = client.can_cancel_execution(
                CanCancelExecutionRequest(run_id=run.run_id), timeout=ASK_SECONDS
            )
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server does not answer")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, "the code server was restarted and the run went with it"
        )
