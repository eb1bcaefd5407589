"""Processes for the launcher's tests: a stand-in for `accelerate launch`, and what it trains."""

import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil

# Like accelerate 1.15's simple_launcher: Popen and wait, signals are not forwarded.
FAKE_ACCELERATE = """
import subprocess, sys
module = sys.argv[sys.argv.index("-m") + 1]
rest = sys.argv[sys.argv.index("-m") + 2:]
sys.exit(subprocess.Popen([sys.executable, module, *rest]).wait())
"""

# Says that it runs, saves when asked to end, and is slow to go.
SLOW_TRAINER = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    (folder / "saved").write_text("yes")
    sys.exit(0)
if "--deaf" not in sys.argv:
    signal.signal(signal.SIGTERM, save)
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / "pid.tmp").write_text(str(os.getpid()))
(folder / "pid.tmp").rename(folder / "pid")
time.sleep(60)
"""

REPORTING_TRAINER = """
import sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("step 1: loss 0.5")
    if "--fail" in sys.argv:
        pipes.report_custom_message(
            {"event": "error", "reason": "no_space", "message": "the disk is full"}
        )
        sys.exit(3)
    pipes.report_asset_materialization(metadata={"loss": 0.5}, data_version="v1")
"""


def write_script(folder: Path, name: str, text: str) -> Path:
    """Write a program."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def fake_accelerate(folder: Path) -> list[str]:
    """A command that stands in for `accelerate`."""
    return [sys.executable, str(write_script(folder, "fake_accelerate.py", FAKE_ACCELERATE))]


def wait_for(condition: Callable[[], bool], *, seconds: float = 15.0) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited too long")
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Whether no such process runs any more; a zombie does not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
