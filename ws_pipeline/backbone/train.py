"""The trainer: ``accelerate launch -m ws_pipeline.backbone.train --job JOB.json``.

What it is: one job file to one published model, on one process or many, under Dagster or by hand.
What it is not: the work (``trainer``), the loop (``loop``). Does I/O. In the job's folder:

    checkpoints/    resumed from by itself after any kind of end
    metrics.jsonl   every metric point
    model/          model.safetensors, config.json, training.json; renamed into place last
    result.json     what the caller wants to know, once more

A model that is already there for the same job is reported and left alone. Exit codes: 0 done, 1
failed, 2 refused, 143 stopped by SIGTERM or SIGINT with a checkpoint written; `accelerate launch`
itself turns every one but 0 into 1.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.threads import let_threads_sleep
from ws_pipeline.errors import WsPipelineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job; returns the exit code."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="ws_pipeline.backbone.train")
    parser.add_argument("--job", type=Path, required=True, help="a TrainJob as JSON")
    path = parser.parse_args(arguments).job
    try:
        job = TrainJob.read(path)
        let_threads_sleep()  # before torch, in this process, whoever launched it
        from ws_pipeline.backbone.trainer import launch_job

        return launch_job(job, began=began)
    except WsPipelineError as error:
        if os.environ.get("RANK", "0") == "0":  # set by the launcher of several processes
            sys.stderr.write(f"error[{error.reason}]: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
