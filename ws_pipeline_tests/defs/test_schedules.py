from datetime import UTC, datetime

import dagster as dg

from ws_pipeline.defs.build import build_defs
from ws_pipeline.defs.schedules import nightly_crawl, nightly_requests

NIGHT = datetime(2026, 11, 20, 2, 17, tzinfo=UTC)


def test_each_night_asks_for_one_crawl_of_each_family() -> None:
    requests = nightly_requests(["vit", "bert"], NIGHT)
    assert [r.partition_key for r in requests] == ["bert", "vit"]
    assert [r.run_key for r in requests] == ["crawl-bert-2026-11-20", "crawl-vit-2026-11-20"]
    assert {r.tags["ws/look_since"] for r in requests} == {"2026-11-20T02:17:00+00:00"}
    assert requests == nightly_requests(["bert", "vit"], NIGHT)


def test_no_family_no_request() -> None:
    assert nightly_requests([], NIGHT) == []


def test_the_schedule_asks_for_the_families_that_the_instance_knows() -> None:
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("family", ["bert", "vit"])
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=NIGHT,
            repository_def=build_defs().get_repository_def(),
        )
        data = nightly_crawl.evaluate_tick(context)
    assert sorted(str(request.partition_key) for request in data.run_requests or []) == [
        "bert",
        "vit",
    ]
