"""A small parent for a training command: when its own parent goes, nothing of the training stays.

`python -m ws_pipeline.defs.supervisor --grace 30 -- COMMAND...` runs COMMAND in a session of its
own and ends with its exit code. It ends the whole tree (SIGTERM, then SIGKILL after the grace) when
it is sent SIGTERM or SIGINT, or when its standard input is closed. The launcher holds the other end
of that pipe, so the kernel closes it however the launcher dies, SIGKILL included; a flag in the
trainer (PR_SET_PDEATHSIG) would only watch its direct parent, which is `accelerate launch`, and
that one forwards nothing (facts: 1.15 `simple_launcher` is Popen and wait).

Standard library and psutil only: it starts in 0.1 s. Not Dagster, not a process manager.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import psutil

POLL_SECONDS = 0.05
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and end with it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="supervisor")
    parser.add_argument(
        "--grace", type=float, required=True, help="seconds from SIGTERM to SIGKILL"
    )
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
    _adopt_orphans()
    child = subprocess.Popen(given.command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    while child.poll() is None and not stop.is_set():
        stop.wait(POLL_SECONDS)
    end_tree(child, grace_seconds=given.grace)
    code = child.wait()
    return code if code >= 0 else 128 - code


def end_tree(child: "subprocess.Popen[bytes]", *, grace_seconds: float) -> None:
    """Ask every descendant to end, wait, then kill what is left."""
    for process in _descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + grace_seconds
    while _descendants() and time.monotonic() < deadline:
        child.poll()
        time.sleep(POLL_SECONDS)
    for process in _descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ProcessLookupError):
        # Where orphans are not adopted (not Linux), the session still groups most of them.
        os.killpg(child.pid, signal.SIGKILL)


def _descendants() -> list[psutil.Process]:
    """Every living process below this one."""
    alive = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, where the kernel can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _await_end_of_input(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
