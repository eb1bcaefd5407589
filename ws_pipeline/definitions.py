"""Entry point of the Dagster code location.

The file of settings (:mod:`ws_pipeline.settings`) is read when the location is loaded, in each of
its processes, and `WS_EXECUTOR`, as it is what a code location is made of.
"""

import os

import dagster as dg

from ws_pipeline.defs.build import build_defs
from ws_pipeline.defs.executors import IN_PROCESS
from ws_pipeline.settings import EXECUTOR_VARIABLE, apply_file


@dg.definitions
def defs() -> dg.Definitions:
    """Assets, checks, jobs, schedules, sensors and resources of the project."""
    apply_file()
    return build_defs(executor=os.environ.get(EXECUTOR_VARIABLE) or IN_PROCESS)
