"""Runs whose process was killed: nobody else would ever end them. Reads and writes the run storage.

An in-process run has no launcher that watches it, so after SIGKILL or a power cut it would stand as
running for ever. Every run of the driver names its process; the next driver ends those whose
process is gone.
"""

import socket

import dagster as dg
import psutil

DRIVER_TAG = "ws/driver"
UNFINISHED = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def driver_tags() -> dict[str, str]:
    """Name this process: host, pid, and when it started, since pids come again."""
    process = psutil.Process()
    return {DRIVER_TAG: f"{_host()}_{process.pid}_{int(process.create_time())}"}


def end_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed what a driver of this host left running; their run ids."""
    found = instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED)))
    abandoned = [run for run in found if _is_gone(run.tags.get(DRIVER_TAG, ""))]
    for run in abandoned:
        instance.report_run_failed(run, "The process that ran it is gone; run it again.")
        # The daemon would do it in time; without one, four kills would block the pool for ever.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in abandoned]


def _is_gone(driver: str) -> bool:
    """Whether a tag names a process of this host that does not run any more."""
    host, _, rest = driver.partition("_")
    pid, _, started = rest.partition("_")
    if host != _host() or not pid.isdigit():
        return False
    try:
        return int(psutil.Process(int(pid)).create_time()) != int(started)
    except psutil.NoSuchProcess:
        return True


def _host() -> str:
    return socket.gethostname().replace("_", "-")
