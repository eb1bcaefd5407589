"""The processes of a training below a code server, and what it has written so far."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil

from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.defs.launcher import LauncherResource
from ws_pipeline_tests.deployment.stack import Stack

MODULE = "ws_pipeline.backbone.train"

NUM_STEPS = 240
CHECKPOINT_EVERY = 40
"""Of the deployment's training (`short_definitions`): a few seconds, and a kill finds it busy."""


def find_folder(stack: Stack) -> Path | None:
    """The folder of the one training; None before it began."""
    found = list((stack.folder / "data" / "runs" / "tiny").glob("*/job.json"))
    return found[0].parent if found else None


def last_checkpoint(stack: Stack) -> int:
    """The step of the newest complete checkpoint; 0 without one."""
    folder = find_folder(stack)
    steps = [] if folder is None else (folder / "checkpoints").glob("step-*")
    return max((int(re.sub(r"\D", "", path.name)) for path in steps), default=0)


def trainers(stack: Stack) -> list[psutil.Process]:
    """Processes that train."""
    return [p for p in stack.living() if _words(p)[1:3] == ["-m", MODULE]]


def launchers(stack: Stack) -> list[psutil.Process]:
    """Processes of `accelerate launch`."""
    return [p for p in stack.living() if "launch" in _words(p)[3:4] and MODULE in _words(p)]


def train_undisturbed(stack: Stack, folder: Path) -> bytes:
    """Train the same job elsewhere, alone, launched alike (its threads decide the sums' order)."""
    found = find_folder(stack)
    assert found is not None
    job = TrainJob.read(found / "job.json")
    alone = replace(job, out_dir=str(folder), mlflow_tracking_uri="")
    alone.write(folder / "job.json")
    command = LauncherResource().command(MODULE, ["--job", str(folder / "job.json")], 1)
    subprocess.run(command, env={**os.environ, **stack.environment("code")}, check=True)
    return (folder / "model" / "model.safetensors").read_bytes()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
