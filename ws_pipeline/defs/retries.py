"""Whether a step that failed is tried again, and how a person sees which it was. Waits by Dagster.

Dagster has three mechanisms that know nothing of each other. A step's retry is decided here, from
the error: what may pass (a hub or store that does not answer, a killed trainer) is tried again
after a pause that doubles, what will not (refused, gated, misconfigured) never. A run's retry
(`run_retries`) only follows a killed worker: `retry_on_asset_or_op_failure` is off. Automation asks
again when inputs change. No `RetryPolicy` is used: with one, Dagster 1.13 repeats every error, and
a step that Ctrl-C ended too.

Runs of the command line are not tried again: a person is there, and the same command goes on.

Belongs here: the verdict on one error. Does not: repeating single requests (`hub.retries`, S3's
client), rows of repos that failed (`step.RETRYABLE`).
"""

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import dagster as dg
from dagster._core.execution.context.system import StepExecutionContext

from ws_pipeline.defs.abandoned import DRIVER_TAG
from ws_pipeline.errors import BusyError, IntegrityError, Reason, StorageError, WsPipelineError
from ws_pipeline.hub.responses import TransientError

MAX_RETRIES = 3

FIRST_PAUSE_SECONDS = 20.0
"""Twice as long before each further try: 20, 40, 80 s, each shortened by up to a half by chance, so
that families that lost one hub together do not come back together."""

FAILURE_TAG = "ws/failure"
"""On a run: `transient:<reason>` or `permanent:<reason>` of the last error of a step."""

TRANSIENT, PERMANENT = "transient", "permanent"

_PASSING = frozenset({Reason.UNREACHABLE, Reason.NO_SPACE})
"""Of errors of the store: it did not answer, or had no room for the moment."""


def retried(body: Callable[..., Any]) -> Callable[..., Any]:
    """Judge what an asset's body raises; the body itself knows nothing of retries."""

    @functools.wraps(body)
    def run(context: dg.AssetExecutionContext, *arguments: Any, **named: Any) -> Any:
        with judged(context.get_step_execution_context()):
            return body(context, *arguments, **named)

    return run


@contextmanager
def judged(step: StepExecutionContext) -> Iterator[None]:
    """Turn an error into a request for another try of the step, or a failure with its verdict.

    What is none of ours, a bug, stays as it is.
    """
    try:
        yield
    except dg.Failure as failure:
        _conclude(step, failure, failure, is_transient=failure.allow_retries)
    except WsPipelineError as error:
        stated = dg.Failure(str(error), metadata={"reason": str(error.reason)})
        _conclude(step, stated, error, is_transient=is_transient(error))


def is_transient(error: WsPipelineError) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, StorageError):
        return isinstance(error, BusyError | IntegrityError) or error.reason in _PASSING
    return isinstance(error, TransientError)


def pause_seconds(num_tries: int) -> float:
    """Return how long to wait after so many tries."""
    return FIRST_PAUSE_SECONDS * 2.0 ** (num_tries - 1) * random.uniform(0.5, 1.0)  # noqa: S311


def _conclude(
    step: StepExecutionContext,
    failure: dg.Failure,
    error: Exception,
    *,
    is_transient: bool,
) -> NoReturn:
    """Raise a request for another try, or the failure with its verdict."""
    kind = TRANSIENT if is_transient else PERMANENT
    reason = failure.metadata.get("reason")
    code = str(Reason.INTERNAL if reason is None else reason.value)
    num_tries = step.previous_attempt_count + 1
    step.instance.add_run_tags(step.run_id, {FAILURE_TAG: f"{kind}:{code}"})
    is_watched = DRIVER_TAG in step.run_tags
    if is_transient and not is_watched and num_tries <= MAX_RETRIES:
        pause = pause_seconds(num_tries)
        said = f"{kind} ({code}): {failure.description}"
        step.log.warning(
            "%s Try %d of %d, the next in %.0f s.", said, num_tries, MAX_RETRIES + 1, pause
        )
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=pause) from error
    raise dg.Failure(
        failure.description,
        metadata={**failure.metadata, "reason": code, "failure": kind, "num_tries": num_tries},
        allow_retries=False,  # the verdict is final
    ) from error
