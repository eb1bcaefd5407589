"""Entry point of the Dagster code location."""

import dagster as dg

from ws_pipeline.defs.build import build_defs


@dg.definitions
def defs() -> dg.Definitions:
    """Assets, checks, jobs, schedules, sensors and resources of the project."""
    return build_defs()
