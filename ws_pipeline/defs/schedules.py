"""The nightly crawl: off by default, thin over a pure function."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from ws_pipeline.defs.assets.hub import LOOK_SINCE_TAG
from ws_pipeline.defs.jobs import crawl_family
from ws_pipeline.defs.partitions import FAMILY_TAG, families


def nightly_requests(family_names: Sequence[str], at: datetime) -> list[dg.RunRequest]:
    """One crawl a family and night; the run key keeps a repeated tick from asking twice.

    All of them want the hub as it is after ``at``: whichever comes first scans it, for all.
    """
    return [
        dg.RunRequest(
            run_key=f"crawl-{family}-{at:%Y-%m-%d}",
            partition_key=family,
            tags={FAMILY_TAG: family, LOOK_SINCE_TAG: at.astimezone(UTC).isoformat()},
        )
        for family in sorted(family_names)
    ]


@dg.schedule(
    job=crawl_family,
    cron_schedule="17 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Crawl every known family at 02:17 UTC.",
)
def nightly_crawl(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """Ask for one crawl of each family."""
    names = families.get_partition_keys(dynamic_partitions_store=context.instance)
    yield from nightly_requests(names, context.scheduled_execution_time)
