from datetime import UTC, datetime

from ws_pipeline.defs.schedules import nightly_requests
from ws_pipeline.defs.sensors import find_new_families, first_crawls

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
