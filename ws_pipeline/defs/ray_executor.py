"""Steps of a run as tasks of a Ray cluster: Ray finds the node, Dagster has the step. Talks to Ray.

A step is one task, in a process of its own that is not used again. Ray itself runs it again on
another node when its worker or its node dies (`max_losses`); a step that fails by its own error is
not repeated, as everywhere else (docker/dagster.yaml). What a lost attempt had stored is found by
the next one, and no half of anything is visible (docs/formats.md). Tasks end with the run's worker,
which is their driver, so that no step outlives its run.

Belongs here: launching, watching and ending tasks. Does not: which steps there are, or their
environment: nodes have the code server's own (WS_STORE, AWS_*, HF_TOKEN), so that no secret travels
through Ray. Why it is not the executor of `dagster-ray`: docs/decisions/0021.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._cli.api import execute_step_command
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.events import EngineEventData
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._core.executor.base import Executor
from dagster._core.executor.init import InitExecutorContext
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import deserialize_value, serialize_value

CHECK_SECONDS = 5
"""Between two looks at the running tasks."""

MAX_LOSSES = 3
"""Nodes that one step may lose before it counts as failed."""

_SCHEMA = {
    "address": dg.Field(
        str, is_required=False, description="Of the cluster; empty: $RAY_ADDRESS, else a local one"
    ),
    "num_cpus": dg.Field(float, default_value=1.0, description="That a step takes of its node"),
    "num_gpus": dg.Field(
        float, default_value=0.0, description="The same; a step that has none sees no GPU"
    ),
    "max_losses": dg.Field(
        int, default_value=MAX_LOSSES, description="How often a step that lost its node runs again"
    ),
    "retries": get_retries_config(),  # type: ignore[no-untyped-call]
    "max_concurrent": dg.Field(
        int,
        is_required=False,
        description="Steps of one run at a time; empty: what Ray has room for",
    ),
    "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
}


@dg.executor(
    name="ray", config_schema=_SCHEMA, requirements=multiple_process_executor_requirements()
)
def ray_executor(init_context: InitExecutorContext) -> Executor:
    """Executes each step as a task of a Ray cluster."""
    config: Mapping[str, Any] = init_context.executor_config
    return StepDelegatingExecutor(
        RayTaskHandler(
            address=config.get("address"),
            options={
                "num_cpus": config["num_cpus"],
                "num_gpus": config["num_gpus"],
                "max_retries": config["max_losses"],
            },
        ),
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        max_concurrent=config.get("max_concurrent"),
        tag_concurrency_limits=config.get("tag_concurrency_limits"),
        check_step_health_interval_seconds=CHECK_SECONDS,
        # Dagster refuses a second start of an attempt; here that is what follows a lost node.
        should_verify_step=False,
    )


@dataclass(slots=True)
class _Launched:
    """A task, and whether it was seen to have ended before."""

    task: Any
    has_ended: bool = False


class RayTaskHandler(StepHandler):
    """Launches, watches and ends the tasks of one run.

    Args:
        address: Of the cluster; None: what the environment says.
        options: Of each task, as `ray.remote` takes them.
    """

    def __init__(self, *, address: str | None, options: Mapping[str, Any]) -> None:
        super().__init__()
        self._address = address
        self._options = options
        self._launched: dict[str, _Launched] = {}

    @property
    def name(self) -> str:
        """What Dagster's log calls it."""
        return "RayTaskHandler"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Give the step to Ray, which finds a node that has room."""
        import ray

        if not ray.is_initialized():
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.WARNING)
        key = _step_key(step_handler_context)
        yield dg.DagsterEvent.step_worker_starting(
            step_handler_context.get_step_context(key),
            message=f"Step {key} waits for a node of the Ray cluster.",
            metadata={},
        )
        # One call per process: what a step leaves in memory goes with it.
        remote = ray.remote(max_calls=1, retry_exceptions=False, **self._options)(run_step)
        arguments = serialize_value(step_handler_context.execute_step_args)
        task = remote.options(name=f"{step_handler_context.dagster_run.run_id[:8]} {key}").remote(
            arguments
        )
        self._launched[key] = _Launched(task)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Say whether a step's task is there, or has ended a moment ago."""
        import ray

        launched = self._launched.get(_step_key(step_handler_context))
        if launched is None:
            return CheckStepHealthResult.unhealthy("the worker that gave it to Ray is gone")
        ready, _ = ray.wait([launched.task], timeout=0)
        if not ready:
            return CheckStepHealthResult.healthy()
        try:
            ray.get(launched.task)
        except ray.exceptions.RayError as error:
            return CheckStepHealthResult.unhealthy(" ".join(str(error).split())[:500])
        if launched.has_ended:  # its last events are in the log by now
            return CheckStepHealthResult.unhealthy("its task ended without saying how")
        launched.has_ended = True
        return CheckStepHealthResult.healthy()

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Interrupt a step's task; Ray sends it what Ctrl-C sends."""
        import ray

        key = _step_key(step_handler_context)
        yield dg.DagsterEvent.engine_event(
            step_handler_context.get_step_context(key),
            f"Ending the task of {key}",
            EngineEventData(),
        )
        if key in self._launched:
            ray.cancel(self._launched[key].task)


def run_step(arguments: str) -> None:
    """Execute one step in this process, unless an attempt that was lost had finished it."""
    given = deserialize_value(arguments, ExecuteStepArgs)
    if not _has_finished(given):
        execute_step_command.main(["--", arguments], standalone_mode=False)


def _has_finished(arguments: ExecuteStepArgs) -> bool:
    """Whether the log has the end of this attempt, which a task that died later does not undo."""
    if arguments.instance_ref is None:
        return False
    with dg.DagsterInstance.from_ref(arguments.instance_ref) as instance:
        stats = instance.get_run_step_stats(arguments.run_id, arguments.step_keys_to_execute)
    return any(step.end_time is not None for step in stats)


def _step_key(context: StepHandlerContext) -> str:
    (key,) = context.execute_step_args.step_keys_to_execute or ()
    return key
