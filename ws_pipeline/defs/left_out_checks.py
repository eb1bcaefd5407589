"""Asset checks on what is left out: counts by reason, and a warning when their share jumps.

Belongs here: comparing with the materialisation before. Does not: deciding what is left out (the
policies do). They never block: a hub may really have changed; a person should look.
"""

import warnings
from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.assets.corpus import SPLITS, VERDICTS_TABLE
from ws_pipeline.defs.assets.hub import SELECTION
from ws_pipeline.defs.left_out import count_reasons, left_out_figure, left_out_table
from ws_pipeline.defs.partitions import families
from ws_pipeline.defs.resources import StoreResource

MAX_SHARE_JUMP = 0.10
"""Of the judged repos, up or down."""

MIN_JUDGED = 20
"""In both materialisations: of fewer, one repo moves the share by more than half the bound."""


def judge_jump(now: tuple[int, int], before: tuple[int, int] | None) -> tuple[bool, str]:
    """Say whether the share that is left out is steady, and in words how it moved.

    Args:
        now: Repos that were accepted and refused.
        before: The same of the materialisation before; None if there is none.
    """
    share = now[1] / max(sum(now), 1)
    if before is None:
        return True, f"{share:.0%} left out; nothing to compare with yet"
    earlier = before[1] / max(sum(before), 1)
    words = f"{share:.0%} left out, {earlier:.0%} before"
    if min(sum(now), sum(before)) < MIN_JUDGED:
        return True, f"{words}; too few repos to call it a jump"
    return abs(share - earlier) <= MAX_SHARE_JUMP, words


def read_counts_before(
    context: dg.AssetCheckExecutionContext, asset_key: dg.AssetKey
) -> tuple[int, int] | None:
    """Accepted and refused repos of the materialisation before the latest one."""
    partitions = [context.partition_key] if context.has_partition_key else None
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset_key, asset_partitions=partitions), limit=2
    ).records
    if len(records) < 2 or records[1].asset_materialization is None:
        return None
    metadata = records[1].asset_materialization.metadata
    counts = [metadata.get(name) for name in ("num_accepted", "num_refused")]
    if None in counts:
        return None
    accepted, refused = (int(str(value.value)) for value in counts if value is not None)
    return accepted, refused


def left_out_check(asset_key: dg.AssetKey, stage: str) -> dg.AssetChecksDefinition:
    """Make the check of one stage's verdicts: its table's own, or the corpus' beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=dg.PreviewWarning)

        @dg.asset_check(
            asset=asset_key,
            name="left_out_share_is_steady",
            description=(
                "Counts by reason; warns when the share left out moves by more than "
                f"{MAX_SHARE_JUMP:.0%} of the repos."
            ),
            partitions_def=families if asset_key == SELECTION else None,
        )
        def check(
            context: dg.AssetCheckExecutionContext, table: pl.LazyFrame, store: StoreResource
        ) -> dg.AssetCheckResult:
            judged = table
            if asset_key == SPLITS:
                judged = store.open().tables.scan(VERDICTS_TABLE)
            verdicts = judged.select("accepted", "reason").collect()
            num_accepted = int(verdicts["accepted"].sum())
            now = num_accepted, verdicts.height - num_accepted
            steady, words = judge_jump(now, read_counts_before(context, asset_key))
            metadata = {"share": words, **describe_counts(verdicts, stage)}
            if asset_key == SPLITS:  # one a run, not one a family
                picture = left_out_figure(count_reasons(verdicts, stage))
                metadata["left_out_figure"] = dg.MetadataValue.md(picture)
            return dg.AssetCheckResult(
                passed=steady, severity=dg.AssetCheckSeverity.WARN, metadata=metadata
            )

    return check


def describe_counts(verdicts: pl.DataFrame, stage: str) -> dict[str, Any]:
    """Counts of a stage's refusals: numbers, which Dagster plots over time, and a table."""
    dropped = count_reasons(verdicts, stage)
    num_left_out = int(dropped["num_repos"].sum() or 0)
    by_reason = dropped.select("reason", "num_repos").iter_rows()
    return {
        "num_judged": verdicts.height,
        "num_left_out": num_left_out,
        "share_left_out": num_left_out / max(verdicts.height, 1),
        **{f"num_{reason}": number for reason, number in by_reason},
        "left_out": dg.MetadataValue.md(left_out_table(dropped)),
    }


LEFT_OUT_CHECKS = [left_out_check(SELECTION, "selection"), left_out_check(SPLITS, "corpus")]
