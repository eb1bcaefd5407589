"""A run's worker ends when the code server that started it is gone. Starts a thread.

Dagster 1.13 leaves a worker behind whose code server was killed: it goes on writing while the run
that takes its place does the same. A container's end takes all its processes along, a process
outside of one has to look for itself. It ends at once and without a word, as if it had been killed
too: whatever is stored is either whole or invisible (docs/formats.md), trainings end with the pipe
of their supervisor, and the daemon starts the run again.
"""

import multiprocessing
import os
import threading
import time

import psutil

POLL_SECONDS = 1.0
EXIT_CODE = 143
_CODE_SERVER = ("code-server", "api", "grpc")
"""Words of the two commands between a person and a run's worker."""

_started = threading.Lock()


def end_with_code_server() -> bool:
    """Watch what started this process, if that is a code server; says whether it does.

    The command line's runs are no code server's, and end with their terminal as any process does.
    """
    if multiprocessing.parent_process() is None or not _started.acquire(blocking=False):
        return False
    above = [process for process in psutil.Process().parents()[:2] if _is_code_server(process)]
    if not above:
        return False
    threading.Thread(
        target=_end_with, args=(above,), name="end-with-code-server", daemon=True
    ).start()
    return True


def _is_code_server(process: psutil.Process) -> bool:
    try:
        return any(word in process.cmdline() for word in _CODE_SERVER)
    except psutil.Error:
        return False


def _end_with(processes: list[psutil.Process]) -> None:
    while all(_is_alive(process) for process in processes):
        time.sleep(POLL_SECONDS)
    os._exit(EXIT_CODE)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
