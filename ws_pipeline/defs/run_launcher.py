"""Dagster's default run launcher, and whether a run's worker is still there.

Runs are processes of the code server. When one dies alone, the code server reports it. When the
code server dies with it (a container that was killed, a host that went down), Dagster 1.13 never
asks again: the run stands as started for ever and keeps its family's one place. This launcher lets
the daemon's run monitoring ask the code server that started a run whether it knows it; one that
does not for a while is marked as failed, and run again. At once would be too early: the daemon
tries once, with the code location as it last saw it, which may be the one that was down. That a
worker never outlives its code server, so that no run has two, is `defs.worker`'s part. Talks gRPC.

Belongs here: the question. Does not: how runs are started or ended (`DefaultRunLauncher`), or what
happens then (`run_monitoring` and `run_retries` in dagster.yaml).
"""

import json
import time
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

SETTLING_SECONDS = 75.0
"""Of a code server that is back, before a run that it does not know counts as gone. The daemon
(Dagster 1.13) looks at code locations anew every 60 seconds."""


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in the code server, and can say whether they are still there."""

    def __init__(self, *arguments: Any, settling_seconds: float = SETTLING_SECONDS, **named: Any):
        super().__init__(*arguments, **named)
        self._settling_seconds = settling_seconds
        self._missed_at: dict[str, float] = {}
        """When a run was first unknown to its code server, in this process's monotonic seconds."""

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
        now = time.monotonic()
        if now - self._missed_at.setdefault(run.run_id, now) < self._settling_seconds:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server has just come back")
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, "the code server was restarted and the run went with it"
        )
