"""Finding families: off by default, thin over a pure function."""

from collections.abc import Collection, Iterable

import dagster as dg

from ws_pipeline.defs.jobs import crawl_family
from ws_pipeline.defs.partitions import families
from ws_pipeline.defs.resources import HubResource


def find_new_families(listed: Iterable[str], known: Collection[str]) -> list[str]:
    """Families that the hub lists and the instance does not know, sorted."""
    return sorted(set(listed) - set(known))


def first_crawls(new_families: Iterable[str]) -> list[dg.RunRequest]:
    """One crawl of each new family; the run key keeps it from being asked for twice."""
    return [
        dg.RunRequest(run_key=f"first-crawl-{name}", partition_key=name, tags={"ws/family": name})
        for name in new_families
    ]


@dg.sensor(
    job=crawl_family,
    minimum_interval_seconds=6 * 60 * 60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Add a partition for every family that the hub lists, and crawl it once.",
)
def discover_families(context: dg.SensorEvaluationContext, hub: HubResource) -> dg.SensorResult:
    """List the hub; nothing is removed by itself, a family's history is data."""
    from ws_pipeline.hub.families import discover_families as list_families

    known = families.get_partition_keys(dynamic_partitions_store=context.instance)
    new = find_new_families(list_families(hub.client()), known)
    return dg.SensorResult(
        run_requests=first_crawls(new),
        dynamic_partitions_requests=[families.build_add_request(new)] if new else [],
    )
