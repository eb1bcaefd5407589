"""What went wrong in a run, as a reason code and one sentence. No I/O.

Belongs here: reading Dagster's results. Does not: deciding what to do about it.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from ws_pipeline import errors
from ws_pipeline.errors import Reason, WsPipelineError

_INTERRUPTED = dg.DagsterExecutionInterruptedError.__name__


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One failure: a code of :class:`ws_pipeline.errors.Reason` and a sentence."""

    reason: str
    sentence: str


def raise_interrupt(result: dg.ExecuteInProcessResult) -> None:
    """Dagster makes Ctrl-C and SIGTERM a failed step; the caller gets them back as they were."""
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        if error is not None and error.cls_name == _INTERRUPTED:
            raise KeyboardInterrupt


def find_failures(result: dg.ExecuteInProcessResult) -> dict[dg.AssetKey, Failure]:
    """First failure of each asset: of its own step, or of a blocking check on it."""
    found: dict[dg.AssetKey, Failure] = {}
    for data in result.job_def.asset_layer.data:
        name = data.node_handle.name
        if result.is_node_failed(name):
            failure = describe_step_failure(result.failure_data_for_node(name))
            for key in data.assets_def.keys or {k.asset_key for k in data.assets_def.check_keys}:
                found.setdefault(key, failure)
    for evaluation in result.get_asset_check_evaluations():
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
            numbers = {name: value.value for name, value in evaluation.metadata.items()}
            sentence = f"the check {evaluation.check_name} failed: {numbers}"
            found[evaluation.asset_key] = Failure(reason=str(Reason.INTERNAL), sentence=sentence)
    return found


def describe_run_failure(result: dg.ExecuteInProcessResult) -> Failure:
    """Why a run failed outside of any step (a resource that did not start), or before this one."""
    for event in result.all_events:
        data: Any = event.event_specific_data
        error = getattr(data, "error", None) if event.is_failure else None
        if error is not None:
            return describe_error(error)
    return Failure(reason=str(Reason.INTERNAL), sentence="a step before it failed")


def describe_step_failure(failure: Any) -> Failure:
    """A step's failure: what it says of itself, or its innermost error."""
    said = failure.user_failure_data if failure is not None else None
    if said is None:
        return describe_error(failure.error if failure is not None else None)
    reason = said.metadata.get("reason")
    return Failure(
        reason=str(reason.value if reason is not None else Reason.INTERNAL),
        sentence=str(said.description),
    )


def describe_error(error: Any) -> Failure:
    """The first cause: one of ours keeps its reason, another one its class name."""
    if error is None:
        return Failure(reason=str(Reason.INTERNAL), sentence="it failed without an error")
    while error.cause is not None:
        error = error.cause
    message = " ".join(str(error.message).split())
    kind = getattr(errors, str(error.cls_name), None)
    if not (isinstance(kind, type) and issubclass(kind, WsPipelineError)):
        return Failure(reason=str(Reason.INTERNAL), sentence=message)
    prefix = f"{kind.__module__}.{kind.__name__}: "
    return Failure(reason=str(kind.reason), sentence=message.removeprefix(prefix))
