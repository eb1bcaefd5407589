from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from ws_pipeline.defs.build import build_defs
from ws_pipeline.defs.resources import HomeResource, HubResource
from ws_pipeline.defs.schedules import nightly_crawl, nightly_requests
from ws_pipeline.defs.sensors import discover_families, find_new_families, first_crawls

NIGHT = datetime(2026, 11, 20, 2, 17, tzinfo=UTC)


def test_each_night_asks_for_one_crawl_of_each_family() -> None:
    requests = nightly_requests(["vit", "bert"], NIGHT)
    assert [r.partition_key for r in requests] == ["bert", "vit"]
    assert [r.run_key for r in requests] == ["crawl-bert-2026-11-20", "crawl-vit-2026-11-20"]
    assert requests == nightly_requests(["bert", "vit"], NIGHT)


def test_no_family_no_request() -> None:
    assert nightly_requests([], NIGHT) == []


def test_only_families_that_nobody_knew_are_new() -> None:
    assert find_new_families(["vit", "bert", "gpt2"], {"bert"}) == ["gpt2", "vit"]
    assert find_new_families([], {"bert"}) == []


def test_a_new_family_is_crawled_once() -> None:
    (request,) = first_crawls(["vit"])
    assert (request.partition_key, request.run_key) == ("vit", "first-crawl-vit")


def test_the_sensor_adds_the_families_that_the_embedded_hub_lists(home: Path) -> None:
    hub = HubResource(home=HomeResource(path=str(home)))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("family", ["cnn"])
        with dg.build_sensor_context(instance=instance, resources={"hub": hub}) as context:
            result = discover_families(context)
    assert isinstance(result, dg.SensorResult)
    (added,) = result.dynamic_partitions_requests or []
    assert list(added.partition_keys) == ["mlp"]
    assert [request.partition_key for request in result.run_requests or []] == ["mlp"]


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
