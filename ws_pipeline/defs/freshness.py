"""Whether each family was looked at lately: a check by family, since Dagster's own is by asset.

A freshness policy calls `hub/repos` fresh as soon as one of its partitions was made. Belongs here:
the check and what is reported of it. Does not: how a look is judged (`looks`) or when it is asked
(runs of `hub/repos`, and the sensor `watch_freshness`). Reads the event log and the book.
"""

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from ws_pipeline.defs.assets.hub import REPOS
from ws_pipeline.defs.looks import MAX_AGE, Freshness, judge_freshness
from ws_pipeline.defs.partitions import families
from ws_pipeline.defs.provenance import VersionReader
from ws_pipeline.defs.resources import HubResource, StoreResource

FRESHNESS_CHECK = "the_hub_was_looked_at_lately"

with warnings.catch_warnings():
    warnings.simplefilter("ignore", category=dg.PreviewWarning)

    @dg.asset_check(
        asset=REPOS,
        name=FRESHNESS_CHECK,
        partitions_def=families,
        description=f"The family was crawled, or a scan found it unchanged, within {MAX_AGE}.",
    )
    def the_hub_was_looked_at_lately(
        context: dg.AssetCheckExecutionContext, hub: HubResource, store: StoreResource
    ) -> dg.AssetCheckResult:
        """Warn of a family that nobody looked at for too long; blocks nothing."""
        name = context.partition_key
        edition = hub.book(store.open()).editions.last()
        made = VersionReader(instance=context.instance).metadata(REPOS, name)
        freshness = judge_freshness(edition, name, made, now=datetime.now(UTC))
        return dg.AssetCheckResult(
            passed=not freshness.is_stale,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=describe_freshness(freshness),
        )


def describe_freshness(freshness: Freshness) -> dict[str, str | float]:
    """What the check shows."""
    looked_at = freshness.looked_at
    return {
        "looked_at": looked_at.isoformat(timespec="seconds") if looked_at else "never",
        "max_age_hours": MAX_AGE.total_seconds() / 3600,
    }


def find_news(instance: dg.DagsterInstance, is_stale: Mapping[str, bool]) -> list[str]:
    """Return the families whose last recorded verdict is another one, or that have none."""
    key = dg.AssetCheckKey(REPOS, FRESHNESS_CHECK)
    news = []
    for name, stale in sorted(is_stale.items()):
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [key], partition_filter=PartitionKeyFilter(key=name)
        )
        passed = key in latest and latest[key].status == AssetCheckExecutionRecordStatus.SUCCEEDED
        if key not in latest or passed == stale:
            news.append(name)
    return news
