"""What has to hold of `evaluation/generation`."""

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.generation import GENERATION
from ws_pipeline.defs.checks import blocking_check, verdict
from ws_pipeline.defs.partitions import recipes


@blocking_check(asset=GENERATION, partitions_def=recipes)
def every_generated_start_has_its_baselines(table: pl.LazyFrame) -> dg.AssetCheckResult:
    """The table is valid, and each case was measured with every mandatory baseline.

    No case at all is fine: most recipes ask for none.
    """
    from ws_pipeline.evaluation.generation_starts import BASELINES
    from ws_pipeline.evaluation.results import validate_results

    frame = validate_results(table.collect())
    missing = [
        {"case": case, "missing": sorted(set(BASELINES) - set(part["features"]))}
        for (case,), part in frame.group_by("target")
        if not set(BASELINES) <= set(part["features"])
    ]
    return verdict(pl.DataFrame(missing), num_results=frame.height)


GENERATION_CHECKS = [every_generated_start_has_its_baselines]
