"""One job from its file's values to its published model, reported to whoever listens. Does I/O.

What it is: what one process of a training does. What it is not: the command line and what has to be
settled before torch is loaded (``train``), the wiring of an attempt (``attempt``).
"""

import logging
import sys
from pathlib import Path

from accelerate import Accelerator

from ws_pipeline.backbone.attempt import Attempt
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.pipes import DagsterReport, open_report
from ws_pipeline.backbone.publication import TrainingResult, find_result, write_result
from ws_pipeline.backbone.signals import STOPPED_EXIT_CODE, StopRequest, end_with_parent
from ws_pipeline.errors import ConfigError, RefusedError, WsPipelineError


def launch_job(job: TrainJob, *, began: float) -> int:
    """Run a job on this process, one of those that the launcher started; returns the exit code.

    Args:
        job: What to train.
        began: `time.monotonic()` at the start of the process.

    Raises:
        WsPipelineError: If the job is refused or the training fails; Dagster has been told.
    """
    accelerator = Accelerator(mixed_precision="no")  # precision is the job's own, see devices.py
    is_main = bool(accelerator.is_main_process)
    logging.basicConfig(level=logging.INFO if is_main else logging.WARNING, stream=sys.stderr)
    with open_report(num_steps=job.training.num_steps, main=is_main) as report:
        return run_reported(job, accelerator, report, began=began)


def run_job(
    job: TrainJob, accelerator: Accelerator, report: DagsterReport, *, began: float
) -> TrainingResult | None:
    """Train, conclude, publish, report.

    Args:
        job: What to train.
        accelerator: Where, and with how many others.
        report: The way to Dagster.
        began: `time.monotonic()` at the start of the process.

    Returns:
        The result on the main process; None on the others, and when it was asked to stop.

    Raises:
        WsPipelineError: If the job is refused or the training fails.
    """
    if accelerator.num_processes != job.num_processes:
        raise ConfigError(
            f"TrainJob: num_processes = {job.num_processes} must be what was launched, but it is "
            f"{accelerator.num_processes}; without a GPU, launch with ACCELERATE_USE_CPU=true and "
            "--multi_gpu"
        )
    result = find_result(job)
    if result is not None:
        report.message(f"{job.recipe_name} is trained already; its model is taken as it is")
    else:
        result = _train(job, accelerator, report, began=began)
    if result is not None and accelerator.is_main_process:
        write_result(result, Path(job.out_dir))
        report.materialized(result.metadata(), data_version=result.model_sha256)
    return result


def run_reported(
    job: TrainJob, accelerator: Accelerator, report: DagsterReport, *, began: float
) -> int:
    """Run the job; a failure is reported before it is raised."""
    try:
        result = run_job(job, accelerator, report, began=began)
    except WsPipelineError as error:
        permanent = isinstance(error, RefusedError)
        report.failed(error.reason.value, str(error), permanent=permanent)
        raise
    stopped = result is None and accelerator.is_main_process
    return STOPPED_EXIT_CODE if stopped else 0


def _train(
    job: TrainJob, accelerator: Accelerator, report: DagsterReport, *, began: float
) -> TrainingResult | None:
    stop = StopRequest()
    stop.listen()
    end_with_parent()
    attempt = Attempt(job, accelerator=accelerator, report=report, stop=stop, began=began)
    if not attempt.train():
        text = "stopped on request; a checkpoint is written and the next run goes on from it"
        report.message(text)
        report.failed("stopped", text, permanent=False)
        return None
    result = attempt.conclude()
    accelerator.wait_for_everyone()
    return result
