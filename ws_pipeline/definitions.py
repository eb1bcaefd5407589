"""Entry point of the Dagster code location.

`WS_EXECUTOR` is read when the location is loaded, as it is what a code location is made of.
"""

import os

import dagster as dg

from ws_pipeline.defs.build import build_defs
from ws_pipeline.defs.executors import EXECUTOR_VARIABLE, IN_PROCESS


@dg.definitions
def defs() -> dg.Definitions:
    """Assets, checks, jobs, schedules, sensors and resources of the project."""
    return build_defs(executor=os.environ.get(EXECUTOR_VARIABLE) or IN_PROCESS)
