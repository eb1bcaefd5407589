"""Where the steps of a run are executed: one name chooses, no asset knows. No I/O.

`in_process` is the default: a step costs 0.04 to 0.2 s there and 6 to 12 s in a process of its own
(two busy cores, mostly imports), and runs of a family are processes of their own anyway. The others
spread the steps of one run, over processes, a Ray cluster or Kubernetes. All make the same bytes as
one process (tested: Ray on three real nodes, one of which dies; Kubernetes against an API that runs
its jobs as processes, no cluster). Their settings are run config (`execution:` in the launchpad) or
the environment of their own tools.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import dagster as dg

from ws_pipeline.errors import ConfigError
from ws_pipeline.settings import EXECUTOR_VARIABLE

IN_PROCESS = "in_process"


def _ray() -> dg.ExecutorDefinition:
    if find_spec("ray") is None:
        raise ConfigError(_describe_missing("ray"))
    from ws_pipeline.defs.ray_executor import ray_executor

    return ray_executor


def _kubernetes() -> dg.ExecutorDefinition:
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError as error:
        raise ConfigError(_describe_missing("kubernetes")) from error
    return k8s_job_executor


EXECUTORS: Mapping[str, Callable[[], dg.ExecutorDefinition]] = {
    IN_PROCESS: lambda: dg.in_process_executor,
    "multiprocess": lambda: dg.multiprocess_executor,
    "ray": _ray,
    "kubernetes": _kubernetes,
}


def find_executor(name: str) -> dg.ExecutorDefinition:
    """The executor of a name.

    Raises:
        ConfigError: If there is none of that name, or its package is not installed.
    """
    if name not in EXECUTORS:
        raise ConfigError(
            f"{EXECUTOR_VARIABLE} has to be one of {', '.join(EXECUTORS)}; got {name!r}."
        )
    return EXECUTORS[name]()


def _describe_missing(extra: str) -> str:
    return f"The executor {extra!r} needs its extra: pip install 'ws-pipeline[{extra}]'."
