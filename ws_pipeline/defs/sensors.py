"""Following a hub from Dagster: off by default, thin over pure functions.

`follow_the_hub` scans within a time budget: each page that came is stored with the cursor of the
next (in the book, `hub.scan_book`), so a tick goes on where the last one stopped, or was killed. It
then goes round the families (its own cursor names the last one) and asks for a crawl of those that
the book has moved. `watch_freshness` makes no run: it judges every family, and reports verdicts
that are news.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from ws_pipeline.defs.assets.hub import EDITION_TAG, REPOS
from ws_pipeline.defs.freshness import FRESHNESS_CHECK, describe_freshness, find_news
from ws_pipeline.defs.jobs import crawl_family
from ws_pipeline.defs.looks import LOOKED_AT, choose_moved, has_moved, judge_freshness
from ws_pipeline.defs.partitions import FAMILY_TAG, families, partition_keys
from ws_pipeline.defs.provenance import VersionReader
from ws_pipeline.defs.resources import HubResource, StoreResource
from ws_pipeline.errors import Reason, StorageError
from ws_pipeline.hub.scan import needs_full_scan, scan_hub
from ws_pipeline.hub.scan_edition import Edition

SCAN_SECONDS = 30.0
"""Of a tick. Dagster gives up a tick after 60 s (DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS)."""

MAX_CRAWLS = 25
"""Runs that one tick asks for: the queue shall not fill with what the next tick can ask for."""


def request_crawls(last_looks: Mapping[str, str], edition: Edition) -> list[dg.RunRequest]:
    """One crawl of each family; the run key keeps it from being asked for again while it waits.

    Args:
        last_looks: Of each family, when it was crawled last; "" for never.
        edition: Where the book stands.
    """
    return [
        dg.RunRequest(
            run_key=f"crawl-{name}-{edition.family_digest(name)}-{looked_at}",
            partition_key=name,
            tags={FAMILY_TAG: name, EDITION_TAG: str(edition.number)},
        )
        for name, looked_at in last_looks.items()
    ]


@dg.sensor(
    job=crawl_family,
    minimum_interval_seconds=5 * 60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Scan the hub; add a partition for every new family, crawl those that changed.",
)
def follow_the_hub(
    context: dg.SensorEvaluationContext, hub: HubResource, store: StoreResource
) -> dg.SensorResult | dg.SkipReason:
    """Look at the hub; nothing is removed by itself, a family's history is data."""
    book, now = hub.book(store.open()), datetime.now(UTC)
    deadline = time.monotonic() + SCAN_SECONDS
    try:
        scan = scan_hub(
            hub.client(),
            book,
            now=now,
            full=needs_full_scan(book.editions.last(), now),
            should_stop=lambda: time.monotonic() > deadline,
        )
    except StorageError as error:
        if error.reason != Reason.CONFLICT:
            raise
        return dg.SkipReason(str(error))
    edition = book.editions.last()
    if not edition.scanned_at:
        return dg.SkipReason(f"The first scan has listed {scan.num_listed} repos; it goes on.")
    known = partition_keys(context.instance, REPOS)
    names = {*known, *book.families()}
    made = VersionReader(instance=context.instance).metadata
    moved, after = choose_moved(
        names,
        lambda name: has_moved(edition, name, made(REPOS, name)),
        after=context.cursor or "",
        max_families=MAX_CRAWLS,
    )
    last_looks = {name: str(made(REPOS, name).get(LOOKED_AT, "")) for name in moved}
    new = sorted(names - set(known))
    return dg.SensorResult(
        run_requests=request_crawls(last_looks, edition),
        dynamic_partitions_requests=[families.build_add_request(new)] if new else [],
        cursor=after,
    )


@dg.sensor(
    minimum_interval_seconds=60 * 60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Say of every family whether the hub was looked at lately; makes no run.",
)
def watch_freshness(
    context: dg.SensorEvaluationContext, hub: HubResource, store: StoreResource
) -> dg.SensorResult:
    """Report the families that became stale, or fresh again, as evaluations of the check."""
    edition, now = hub.book(store.open()).editions.last(), datetime.now(UTC)
    versions = VersionReader(instance=context.instance)
    judged = {
        name: judge_freshness(edition, name, versions.metadata(REPOS, name), now=now)
        for name in partition_keys(context.instance, REPOS)
    }
    is_stale = {name: freshness.is_stale for name, freshness in judged.items()}
    return dg.SensorResult(
        asset_events=[
            dg.AssetCheckEvaluation(
                asset_key=REPOS,
                check_name=FRESHNESS_CHECK,
                passed=not judged[name].is_stale,
                severity=dg.AssetCheckSeverity.WARN,
                metadata=describe_freshness(judged[name]),
                partition=name,
            )
            for name in find_news(context.instance, is_stale)
        ]
    )
