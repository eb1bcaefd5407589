"""The sensors on a persistent instance, against hubs that change: what they ask for, and when."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ws_pipeline.defs import sensors
from ws_pipeline.defs.assets.hub import EDITION_TAG, LOOK_SINCE_TAG, REPOS
from ws_pipeline.defs.build import build_defs, default_resources
from ws_pipeline.defs.freshness import FRESHNESS_CHECK
from ws_pipeline.defs.instance import execute, open_instance
from ws_pipeline.defs.looks import choose_moved, judge_freshness
from ws_pipeline.defs.provenance import VersionReader
from ws_pipeline.defs.sensors import follow_the_hub, watch_freshness
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.scan_edition import Edition, Segment
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.scan_hubs import make_hub, serve
from ws_pipeline_tests.hub.scripted_hub import TOKEN

NOW = datetime(2026, 11, 20, 2, 17, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path) as opened:
        yield opened


class Location:
    """The code location over a hub, with a daemon\'s part done by hand."""

    def __init__(self, home: Path, endpoint: str, instance: dg.DagsterInstance) -> None:
        self.resources = default_resources(home=str(home), endpoint=endpoint)
        self.definitions = build_defs(self.resources)
        self.instance = instance
        self.store = Store.open(home / "store")
        self.book = ScanBook.of(self.store, endpoint)
        self.cursor: str | None = None

    def tick(self, sensor: dg.SensorDefinition = follow_the_hub) -> dg.SensorResult:
        """Evaluate a sensor and do what it asks for but the runs."""
        resources = {name: self.resources[name] for name in ("hub", "store")}
        with dg.build_sensor_context(
            instance=self.instance, resources=resources, cursor=self.cursor
        ) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult), result
        for request in result.dynamic_partitions_requests or []:
            assert request.partition_keys is not None
            self.instance.add_dynamic_partitions("family", list(request.partition_keys))
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursor = result.cursor
        return result

    def crawl(self, family: str, tags: dict[str, str]) -> dict[str, object]:
        """Run what a request asks for; the metadata of what it made."""
        runs = execute(
            self.definitions, self.instance, "crawl_family", [REPOS], partition=family, tags=tags
        )
        assert all(run.made for run in runs), runs
        return dict(runs[0].metadata)


def asked(result: dg.SensorResult) -> list[str]:
    return [str(request.partition_key) for request in result.run_requests or []]


def test_a_changing_hub_is_followed_family_by_family(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    hub = make_hub(60, seed=3)
    with serve(hub) as endpoint:
        location = Location(tmp_path, endpoint, instance)
        first = location.tick()
        families = sorted(location.book.families())
        assert instance.get_dynamic_partitions("family") == families == asked(first)
        for request in first.run_requests or []:
            location.crawl(str(request.partition_key), dict(request.tags))
        assert asked(location.tick()) == []

        hub.advance(2)
        again = location.tick()
        assert 1 <= len(asked(again)) <= 4
        for request in again.run_requests or []:
            made = location.crawl(str(request.partition_key), dict(request.tags))
            assert made["num_new"] + made["num_changed"] + made["num_gone"] <= 2  # type: ignore[operator]
        assert asked(location.tick()) == []
        by_ledger = {
            name: Ledger(store=location.store).read_repos(name)
            for name in instance.get_dynamic_partitions("family")
        }
    alive = {name: (frame["status"] != "deleted").sum() for name, frame in by_ledger.items()}
    assert {name: count for name, count in alive.items() if count} == location.book.families()


def test_a_tick_scans_as_long_as_it_may_and_the_next_goes_on(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "SCAN_SECONDS", -1.0)
    monkeypatch.setenv("HF_TOKEN", TOKEN)  # private repos are listed too
    with serve(make_hub(2500, seed=3, share_hostile=0.0)) as endpoint:
        location = Location(tmp_path, endpoint, instance)
        resources = {name: location.resources[name] for name in ("hub", "store")}
        skipped = []
        for _ in range(2):
            with dg.build_sensor_context(instance=instance, resources=resources) as context:
                skipped.append(follow_the_hub(context))
        assert [str(skip.skip_message) for skip in skipped if isinstance(skip, dg.SkipReason)] == [
            "The first scan has listed 1000 repos; it goes on.",
            "The first scan has listed 2000 repos; it goes on.",
        ]
        assert instance.get_dynamic_partitions("family") == []
        location.tick()
    assert sum(location.book.families().values()) == 2500


def test_more_moved_families_than_one_tick_may_ask_for_are_the_next_ticks(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "MAX_CRAWLS", 3)
    with serve(make_hub(60, seed=3)) as endpoint:
        location = Location(tmp_path, endpoint, instance)
        ticks = [asked(location.tick()) for _ in range(3)]
        families = sorted(location.book.families())
    assert ticks[0] + ticks[1] == families[:6]
    assert ticks[2] == (families[6:] + families)[:3]


def moved(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


def test_families_are_gone_round_from_where_the_last_tick_stopped() -> None:
    names = ["a", "b", "c", "d"]
    assert choose_moved(names, moved("a", "c"), after="", max_families=1) == (["a"], "a")
    assert choose_moved(names, moved("a", "c"), after="a", max_families=1) == (["c"], "c")
    assert choose_moved(names, moved("a", "c"), after="c", max_families=1) == (["a"], "a")
    assert choose_moved(names, moved(), after="c", max_families=1) == ([], "")
    assert choose_moved([], moved(), after="", max_families=1) == ([], "")


def test_the_first_run_of_a_night_scans_for_all_of_them(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    hub = make_hub(60, seed=3)
    with serve(hub) as endpoint:
        location = Location(tmp_path, endpoint, instance)
        location.tick()
        tags = {LOOK_SINCE_TAG: (datetime.now(UTC) + timedelta(seconds=1)).isoformat()}
        families = sorted(location.book.families())[:2]
        before = location.book.editions.last().number
        location.crawl(families[0], tags)
        between = location.book.editions.last().number
        location.crawl(families[1], tags)
    assert before < between == location.book.editions.last().number


def test_a_family_without_a_tag_is_listed_by_itself(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with serve(make_hub(60, seed=3)) as endpoint:
        location = Location(tmp_path, endpoint, instance)
        instance.add_dynamic_partitions("family", ["type0"])
        made = location.crawl("type0", {})
    assert made["num_listed"]
    assert made["book_digest"] == ""
    assert location.book.editions.last().number == 0


EDITION = Edition(
    scanned_at=NOW.isoformat(), families={"vit": (Segment(name="families/vit/1", num_rows=1),)}
)


@pytest.mark.parametrize(
    ("made", "hours", "is_stale"),
    [
        ({}, 1, True),
        ({"looked_at": NOW.isoformat()}, 36, False),
        ({"looked_at": NOW.isoformat()}, 37, True),
        ({"looked_at": (NOW - timedelta(days=9)).isoformat()}, 1, True),
        # The book has nothing new of it: the scan was a look at it too.
        (
            {
                "looked_at": (NOW - timedelta(days=9)).isoformat(),
                "book_digest": EDITION.family_digest("vit"),
            },
            36,
            False,
        ),
    ],
)
def test_a_family_is_stale_when_neither_a_crawl_nor_a_scan_looked_at_it(
    made: dict[str, str], hours: int, is_stale: bool
) -> None:
    now = NOW + timedelta(hours=hours)
    assert judge_freshness(EDITION, "vit", made, now=now).is_stale is is_stale


def test_a_family_that_nobody_looks_at_is_reported_once_and_again_when_it_is_fresh(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("family", ["type0", "type1"])
    with serve(make_hub(60, seed=3)) as endpoint:
        location = Location(tmp_path, endpoint, instance)
        location.crawl("type0", {EDITION_TAG: "0"})
        first = location.tick(watch_freshness)
        verdicts = {event.partition: event.passed for event in first.asset_events}  # type: ignore[union-attr]
        assert verdicts == {"type1": False}  # type0 was judged in its own run
        assert not location.tick(watch_freshness).asset_events
        location.crawl("type1", {})
        assert not location.tick(watch_freshness).asset_events
    key = dg.AssetCheckKey(REPOS, FRESHNESS_CHECK)
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
    assert latest[key].status.value == "SUCCEEDED"
    assert VersionReader(instance=instance).metadata(REPOS, "type1")["looked_at"]


def test_the_embedded_hub_is_served_for_the_time_of_a_tick_and_of_a_run(
    home: Path, instance: dg.DagsterInstance
) -> None:
    location = Location(home, "", instance)
    result = location.tick()
    assert asked(result) == ["cnn", "mlp"]
    for request in result.run_requests or []:
        made = location.crawl(str(request.partition_key), dict(request.tags))
        assert (made["num_new"], made["num_gone"]) == (3, 0)
    assert asked(location.tick()) == []
    assert not (home / "budget").exists()
