"""Scans of a simulated hub: what the book says afterwards, and what it cost to say it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ws_pipeline.errors import HubError, Reason, StorageError
from ws_pipeline.hub import scan as scan_module
from ws_pipeline.hub import scan_book as scan_book_module
from ws_pipeline.hub.families import family_of
from ws_pipeline.hub.scan import PATIENCE_SECONDS, follow_hub, needs_full_scan, scan_hub
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.scan_edition import Edition, Progress
from ws_pipeline.hub.scan_rows import merge_rows, parse_items
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.scan_hubs import (
    START,
    everything,
    make_hub,
    open_book,
    scan,
    serve,
    stored,
)
from ws_pipeline_tests.hub.scripted_hub import TOKEN, ScriptedHub, connect, listing_row


@pytest.fixture
def book(store: Store) -> ScanBook:
    return ScanBook.of(store)


def test_a_first_scan_stores_every_repo_in_its_family(book: ScanBook) -> None:
    hub = make_hub(225, seed=1)
    with serve(hub) as endpoint:
        result = scan(endpoint, book)
    rows = parse_items(hub.row(index) for index in hub.oldest_first())
    assert (result.kind, result.num_listed, result.num_pages) == ("full", 225, 9)
    assert result.num_changed == 225
    assert everything(book).sort("hub_id").equals(rows.drop("digest").sort("hub_id"))
    assert sum(book.families().values()) == 225
    assert set(result.families) == set(book.families()) == set(map(family_of, _rows(hub)))


def _rows(hub: SimulatedHub) -> list[dict[str, Any]]:
    return [hub.row(index) for index in hub.oldest_first()]


def test_a_scan_of_an_unchanged_hub_touches_no_family(book: ScanBook) -> None:
    with serve(make_hub(150, seed=1)) as endpoint:
        scan(endpoint, book)
        before = book.editions.last()
        recent = scan(endpoint, book, day=1)
        full = scan(endpoint, book, day=2, full=True)
    after = book.editions.last()
    assert (recent.kind, recent.num_changed, recent.families) == ("recent", 0, ())
    assert recent.num_pages < full.num_pages
    assert (full.kind, full.num_changed, full.families) == ("full", 0, ())
    assert (after.families, after.index) == (before.families, before.index)
    assert len(after.segments()) + 3 == len(stored(book))  # nothing is left over


def test_a_book_that_is_new_enough_is_not_scanned_again(book: ScanBook) -> None:
    with serve(make_hub(100, seed=1)) as endpoint:
        scan(endpoint, book)
        before = stored(book)
        assert scan(endpoint, book).num_pages == 0
    assert stored(book) == before


def test_the_recent_changes_bring_the_book_to_where_a_full_scan_would(
    book: ScanBook, tmp_path: Path
) -> None:
    hub = make_hub(200, seed=4)
    with serve(hub) as endpoint:
        scan(endpoint, book)
        old_names = {hub.row(i)["_id"]: hub.name(i) for i in hub.oldest_first()}
        hub.advance(100)
        result = scan(endpoint, book, day=1)
        assert result.kind == "recent"
        fresh = open_book(tmp_path / "fresh")
        scan(endpoint, fresh, day=1)
        listed = {row["_id"] for row in _rows(hub)}
        assert len(old_names.keys() - listed) >= 2
        still_there = everything(book).filter(pl.col("hub_id").is_in(list(listed)))
        expected = everything(fresh).filter(pl.col("hub_id").is_in(list(listed)))
        assert still_there.drop("aliases").equals(expected.drop("aliases"))
        renamed = still_there.filter(pl.col("aliases").list.len() > 0)
        assert renamed.height >= 2
        for hub_id, aliases in renamed.select("hub_id", "aliases").iter_rows():
            assert aliases == [old_names[hub_id]]
        # A deletion shows in no list of changes: it takes a full scan.
        assert everything(book).filter(state="deleted").is_empty()
        full = scan(endpoint, book, day=2, full=True)
        gone = everything(book).filter(state="deleted")
        malformed = {row["hub_id"] for row in gone.to_dicts() if "malformed" in row["hub_id"]}
        assert set(gone["hub_id"]) - malformed == old_names.keys() - listed
        assert full.num_changed == gone.height
        assert sum(book.families().values()) == len(listed)


def test_only_touched_families_get_a_new_segment(book: ScanBook) -> None:
    hub = make_hub(200, seed=4)
    with serve(hub) as endpoint:
        scan(endpoint, book)
        before = book.editions.last().families
        hub.advance(3)
        result = scan(endpoint, book, day=1)
    after = book.editions.last().families
    assert 1 <= len(result.families) <= 5
    assert {name for name in after if after[name] != before.get(name)} == set(result.families)


def test_a_repo_that_changes_its_family_leaves_the_old_one(
    scripted: ScriptedHub, book: ScanBook
) -> None:
    row = listing_row()
    scripted.answer = lambda _: JSONResponse([row])
    scan(scripted.endpoint, book)
    later = (START + timedelta(hours=2)).isoformat()
    row = listing_row(config={"model_type": "vit"}, lastModified=later)
    scan(scripted.endpoint, book, day=1)
    assert book.families() == {"vit": 1}
    assert book.read("bert").is_empty()
    assert book.read("vit")["repo_id"].to_list() == ["owner/name"]
    row = listing_row()
    scan(scripted.endpoint, book, day=2)
    assert book.families() == {"bert": 1}


def test_a_deleted_repo_that_comes_back_is_listed_again(
    scripted: ScriptedHub, book: ScanBook
) -> None:
    other = listing_row(_id="a" * 24, id="owner/other")
    rows = [other, listing_row()]
    scripted.answer = lambda _: JSONResponse(rows)
    scan(scripted.endpoint, book)
    rows = [other]
    scan(scripted.endpoint, book, day=1, full=True)
    assert sorted(book.read("bert")["state"]) == ["deleted", "listed"]
    rows = [other, listing_row()]
    scan(scripted.endpoint, book, day=2, full=True)
    assert book.read("bert")["state"].to_list() == ["listed", "listed"]


def test_broken_rows_are_kept_in_quarantine(scripted: ScriptedHub, book: ScanBook) -> None:
    scripted.answer = lambda _: JSONResponse([listing_row(sha="x"), 7, None, listing_row()])
    result = scan(scripted.endpoint, book)
    assert (result.num_listed, result.num_malformed) == (4, 3)
    rows = everything(book).filter(state="malformed")
    assert rows.height == 3
    assert set(rows["reason"]) == {"malformed_row"}


def test_a_row_from_the_future_does_not_blind_the_next_scan(
    scripted: ScriptedHub, book: ScanBook
) -> None:
    scripted.answer = lambda _: JSONResponse([listing_row(lastModified="2150-01-01T00:00:00Z")])
    scan(scripted.endpoint, book)
    assert book.editions.last().watermark.startswith(START.isoformat()[:19])


def test_a_listing_that_was_cut_short_deletes_nothing(
    book: ScanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_book_module, "MIN_GONE", 10)
    hub = make_hub(160, seed=1)
    with serve(hub) as endpoint:
        scan(endpoint, book)
        with monkeypatch.context() as shorter:
            shorter.setattr(hub, "oldest_first", lambda start=0: iter(range(start, 120)))
            with pytest.raises(HubError, match="lacks 40 of 160 known repos, but some of them are"):
                scan(endpoint, book, day=1, full=True)
        assert everything(book).filter(state="deleted").is_empty()
        assert scan(endpoint, book, day=1).kind == "recent"  # and it is not stuck there


def test_many_repos_that_are_really_gone_become_tombstones(
    book: ScanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_book_module, "MIN_GONE", 10)
    with serve(make_hub(160, seed=1)) as endpoint:
        scan(endpoint, book)
    with serve(make_hub(120, seed=1)) as endpoint:
        scan(endpoint, book, day=1, full=True)
    assert everything(book).filter(state="deleted").height == 40
    assert sum(book.families().values()) == 120


def test_each_hub_of_a_store_has_a_book_of_its_own(book: ScanBook, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "book")
    other = ScanBook.of(store, "http://127.0.0.1:8900/")
    with serve(make_hub(100, seed=1)) as first, serve(make_hub(50, seed=2)) as second:
        scan(first, book)
        before = stored(book)
        scan(second, other)
        scan(second, other, day=1, full=True)
    assert stored(book) == before
    assert sum(other.families().values()) == 50
    assert other.root == ScanBook.of(store, "http://127.0.0.1:8900").root
    assert other.root not in {book.root, ScanBook.of(store, "https://huggingface.co").root}


def test_a_scan_stops_when_it_is_asked_to_and_goes_on_at_its_cursor(
    book: ScanBook, tmp_path: Path
) -> None:
    hub = make_hub(200, seed=2)
    undisturbed = open_book(tmp_path / "undisturbed")
    with serve(hub) as endpoint:
        scan(endpoint, undisturbed)
        parts = [scan(endpoint, book, should_stop=lambda: True) for _ in range(8)]
        assert [part.is_done for part in parts] == [False] * 7 + [True]
        assert parts[3].num_listed == 100
    assert stored(book) == stored(undisturbed)


def test_a_small_book_and_one_of_last_week_are_scanned_in_full(
    book: ScanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert needs_full_scan(Edition(), START)
    with serve(make_hub(100, seed=1)) as endpoint:
        scan(endpoint, book)
    edition = book.editions.last()
    assert needs_full_scan(edition, START)
    monkeypatch.setattr(scan_module, "SMALL_REPOS", 99)
    assert not needs_full_scan(edition, START + timedelta(days=7))
    assert needs_full_scan(edition, START + timedelta(days=7, seconds=1))


def test_who_comes_second_waits_for_the_scan_of_another_and_does_not_repeat_it(
    book: ScanBook,
) -> None:
    waits: list[float] = []
    with serve(make_hub(100, seed=1)) as endpoint:

        def let_another_take_over(progress: Progress) -> None:
            if progress.num_pages == 1:
                with pytest.raises(KeyboardInterrupt):
                    scan(endpoint, book, on_progress=_interrupt)

        def let_the_other_finish(seconds: float) -> None:
            waits.append(seconds)
            scan(endpoint, book)

        options = {"page_size": 25, "fold_pages": 3, "on_progress": let_another_take_over}
        client = connect(endpoint)
        result = follow_hub(client, book, now=START, sleep=let_the_other_finish, **options)
    assert (len(waits), result.num_pages) == (1, 0)
    assert sum(book.families().values()) == 100


def test_a_scan_whose_process_died_is_taken_over_after_a_while(book: ScanBook) -> None:
    waits: list[float] = []
    with serve(make_hub(100, seed=1)) as endpoint:

        def let_another_take_over_and_die(progress: Progress) -> None:
            if progress.num_pages == 1:
                with pytest.raises(KeyboardInterrupt):
                    scan(endpoint, book, on_progress=_interrupt)

        options = {"page_size": 25, "on_progress": let_another_take_over_and_die}
        client = connect(endpoint, token=TOKEN)
        result = follow_hub(client, book, now=START, sleep=waits.append, **options)
    assert sum(waits) >= PATIENCE_SECONDS
    assert (result.num_pages, result.num_listed) == (4, 100)


def test_a_scan_that_was_broken_off_long_ago_begins_anew(book: ScanBook) -> None:
    with serve(make_hub(75, seed=2)) as endpoint:
        with pytest.raises(KeyboardInterrupt):
            scan(endpoint, book, on_progress=_interrupt)
        assert scan(endpoint, book, day=4).num_pages == 3
    assert sum(book.families().values()) == 75


def test_the_watermark_moves_when_the_last_page_is_stored(book: ScanBook) -> None:
    hub = make_hub(150, seed=1)
    with serve(hub) as endpoint:
        scan(endpoint, book)
        before = book.editions.last().watermark
        hub.advance(50)  # two pages
        with pytest.raises(KeyboardInterrupt):
            scan(endpoint, book, day=1, on_progress=_interrupt)
        assert book.editions.last().watermark == before
        scan(endpoint, book, day=1)
        assert book.editions.last().watermark > before


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_a_scan_that_breaks_off_goes_on_at_its_cursor(book: ScanBook, tmp_path: Path) -> None:
    hub = make_hub(200, seed=2)
    undisturbed = open_book(tmp_path / "undisturbed")
    with serve(hub) as endpoint:
        scan(endpoint, undisturbed)
        for _ in range(8):  # each stores one page and stops
            with pytest.raises(KeyboardInterrupt):
                scan(endpoint, book, on_progress=_interrupt)
        result = scan(endpoint, book)
    assert (result.num_pages, result.num_listed) == (8, 200)
    assert stored(book) == stored(undisturbed)


def test_a_cursor_outlives_a_change_of_port(book: ScanBook) -> None:
    hub = make_hub(75, seed=2)
    with serve(hub) as endpoint, pytest.raises(KeyboardInterrupt):
        scan(endpoint, book, on_progress=_interrupt)
    with serve(hub) as endpoint:
        assert scan(endpoint, book).num_pages == 3
    assert sum(book.families().values()) == 75


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_hub_that_fails_at_every_fifth_request_ends_in_the_same_bytes(
    book: ScanBook, tmp_path: Path, seed: int
) -> None:
    hub = make_hub(200, seed=6)
    stormy = open_book(tmp_path / "stormy")
    with serve(hub) as quiet_end, serve(hub, faults=0.2, seed=seed) as stormy_end:
        for day in (0, 1):
            scan(quiet_end, book, day=day, page_size=5, fold_pages=10)
            for _ in range(9):  # a client that gave up is started again
                try:
                    scan(stormy_end, stormy, day=day, page_size=5, fold_pages=10)
                except HubError:
                    continue
                break
            hub.advance(40)
    assert stored(stormy) == stored(book)


def test_of_two_scans_at_once_one_stops(scripted: ScriptedHub, book: ScanBook) -> None:
    def answer(_: Request) -> Response:
        if len(scripted.requests) == 2:  # the first page of the outer scan
            scan_hub(connect(scripted.endpoint), book, now=START)
        return JSONResponse([listing_row()])

    scripted.answer = answer
    with pytest.raises(StorageError, match="Another scan of the same store is at work") as caught:
        scan(scripted.endpoint, book)
    assert caught.value.reason is Reason.CONFLICT
    assert book.families() == {"bert": 1}


def _frame(names: list[tuple[int, int]]) -> pl.DataFrame:
    rows = [listing_row(_id=str(i) * 24, id=f"owner/name{n}") for i, n in names]
    return parse_items(rows).drop("digest")


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), unique_by=lambda pair: pair[0]),
        min_size=2,
        max_size=6,
    ),
    st.data(),
)
def test_segments_can_be_merged_in_any_grouping(
    looks: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    frames = [_frame(look) for look in looks]
    start = data.draw(st.integers(0, len(frames) - 2))
    stop = data.draw(st.integers(start + 1, len(frames)))
    grouped = [*frames[:start], merge_rows(frames[start:stop]), *frames[stop:]]
    assert merge_rows(grouped).equals(merge_rows(frames))
