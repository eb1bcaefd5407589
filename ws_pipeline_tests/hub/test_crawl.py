import json
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ws_pipeline.errors import HubError
from ws_pipeline.hub.crawl import CrawlResult, crawl_family
from ws_pipeline.hub.families import family_of
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.repo import REPO_SCHEMA, frame_digest
from ws_pipeline.hub.scan import scan_hub
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.scripted_hub import (
    SHA,
    ScriptedHub,
    connect,
    listing_row,
    make_weights,
    write_repo,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = datetime(2026, 11, 2, tzinfo=UTC)


def crawl(endpoint: str, ledger: Ledger, family: str = "mlp", **options: Any) -> CrawlResult:
    return crawl_family(connect(endpoint), ledger, family, now=options.pop("now", NOW), **options)


def row_of(result: CrawlResult, repo_id: str) -> dict[str, Any]:
    return next(row for row in result.frame.to_dicts() if row["repo_id"] == repo_id)


def test_a_first_crawl_knows_every_repo_of_the_family(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights(), card="license: mit")
    write_repo(hub_folder, "zoo/b", weights=make_weights(1), card="base_model: zoo/a")
    write_repo(hub_folder, "zoo/other", config={"model_type": "cnn"})
    seen: list[tuple[int, int]] = []
    result = crawl(endpoint, ledger, on_progress=lambda *counts: seen.append(counts))
    assert dict(result.frame.schema) == REPO_SCHEMA
    assert (result.num_listed, result.num_new, result.num_requested) == (2, 2, 2)
    assert seen == [(1, 2), (2, 2)]
    row = row_of(result, "zoo/a")
    assert row["accepted"]
    assert (row["status"], row["licence"], row["model_type"]) == ("listed", "mit", "mlp")
    assert {file["path"] for file in row["files"]} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    assert row_of(result, "zoo/b")["base_models"] == ["zoo/a"]
    assert ledger.families() == ["mlp"]
    assert ledger.read_repos("mlp").equals(result.frame)


def test_a_crawl_of_an_unchanged_hub_asks_for_no_details_and_keeps_the_digest(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    for number in range(3):
        write_repo(hub_folder, f"zoo/m{number}", weights=make_weights(number))
    first = crawl(endpoint, ledger)
    again = crawl(endpoint, ledger, now=LATER)
    assert again.num_requested == 0
    assert again.changes == {}
    assert again.frame["reused"].all()
    assert again.frame["crawled_at"].unique().to_list() == [LATER]
    assert frame_digest(again.frame) == frame_digest(first.frame)


def test_only_new_and_changed_repos_are_asked_for(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    for number in range(3):
        write_repo(hub_folder, f"zoo/m{number}", weights=make_weights(number))
    first = crawl(endpoint, ledger)
    write_repo(hub_folder, "zoo/m1", weights=make_weights(77))
    write_repo(hub_folder, "zoo/new", weights=make_weights(78))
    result = crawl(endpoint, ledger)
    assert sorted(result.changes.values()) == ["changed", "new"]
    assert (result.num_new, result.num_changed, result.num_requested) == (1, 1, 2)
    assert row_of(result, "zoo/m1")["revision"] != row_of(first, "zoo/m1")["revision"]
    assert frame_digest(result.frame) != frame_digest(first.frame)


def test_a_repo_that_is_gone_becomes_a_tombstone_and_may_come_back(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    write_repo(hub_folder, "zoo/b", weights=make_weights(1))
    first = crawl(endpoint, ledger)
    shutil.move(hub_folder / "zoo" / "b", hub_folder.parent / "b")
    gone = crawl(endpoint, ledger)
    row = row_of(gone, "zoo/b")
    assert gone.num_gone == 1
    assert (row["status"], row["reason"], row["accepted"]) == ("deleted", "not_found", False)
    assert row["files"] == row_of(first, "zoo/b")["files"]
    assert crawl(endpoint, ledger).num_gone == 0
    shutil.move(hub_folder.parent / "b", hub_folder / "zoo" / "b")
    back = crawl(endpoint, ledger)
    assert list(back.changes.values()) == ["back"]
    assert back.num_requested == 0
    assert frame_digest(back.frame) == frame_digest(first.frame)


def test_a_renamed_repo_keeps_its_row_and_its_old_name(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    folder = write_repo(hub_folder, "zoo/old", weights=make_weights())
    hub_id = crawl(endpoint, ledger).frame["hub_id"].item()
    shutil.move(folder, hub_folder / "zoo" / "new")
    for _ in range(2):
        result = crawl(endpoint, ledger)
        row = row_of(result, "zoo/new")
        assert (row["hub_id"], row["aliases"]) == (hub_id, ["zoo/old"])
        assert result.frame.height == 1


def test_a_disabled_repo_is_refused_until_it_is_enabled(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights(), settings={"disabled": True})
    row = row_of(crawl(endpoint, ledger), "zoo/a")
    assert (row["reason"], row["status"]) == ("disabled", "refused")
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    assert row_of(crawl(endpoint, ledger), "zoo/a")["accepted"]


def test_a_dry_run_says_what_is_new_and_writes_nothing(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    result = crawl(endpoint, ledger, dry_run=True)
    assert (result.num_new, result.num_requested) == (1, 1)
    assert ledger.families() == []


def hub_of(rows: list[Any], details: dict[str, Response]) -> Any:
    def answer(request: Request) -> Response:
        if request.url.path == "/api/models":
            return JSONResponse(rows)
        return details[request.url.path.split("/api/models/")[1].split("/revision")[0]]

    return answer


def test_malformed_rows_are_quarantined_and_the_rest_goes_through(
    scripted: ScriptedHub, ledger: Ledger
) -> None:
    rows = [
        listing_row(),
        listing_row(id="owner/broken", _id="5" * 24, sha="no sha"),
        listing_row(id="../../evil", _id="6" * 24),
        {"config": {"model_type": "bert"}},
        "not even an object",
    ]
    scripted.answer = hub_of(rows, {"owner/name": JSONResponse({"sha": SHA, "siblings": []})})
    first = crawl(scripted.endpoint, ledger, "bert")
    assert (first.num_listed, first.num_malformed, first.num_requested) == (4, 3, 1)
    refused = first.frame.filter(~first.frame["accepted"])
    assert refused["reason"].unique().to_list() == ["malformed_row"]
    assert "owner/broken" in refused["repo_id"].to_list()
    assert frame_digest(crawl(scripted.endpoint, ledger, "bert").frame) == frame_digest(first.frame)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(status_code=500), "unreachable"),
        (Response(status_code=404), "not_found"),
        (Response(status_code=401), "private"),
        (Response(b"<html>"), "unreachable"),
        (JSONResponse({"sha": "b" * 40}), "unreachable"),
    ],
)
def test_a_detail_that_cannot_be_had_is_a_row_that_is_tried_again(
    scripted: ScriptedHub, ledger: Ledger, response: Response, reason: str
) -> None:
    scripted.answer = hub_of([listing_row()], {"owner/name": response})
    for attempt in (1, 2):
        row = row_of(crawl(scripted.endpoint, ledger, "bert"), "owner/name")
        assert (row["accepted"], row["reason"], row["attempt"]) == (False, reason, attempt)
    good = JSONResponse({"sha": SHA, "siblings": [{"rfilename": "a", "size": 1}]})
    scripted.answer = hub_of([listing_row()], {"owner/name": good})
    row = row_of(crawl(scripted.endpoint, ledger, "bert"), "owner/name")
    assert (row["accepted"], row["reason"], row["attempt"]) == (True, "", 3)


def test_unsafe_file_names_refuse_the_repo_once(scripted: ScriptedHub, ledger: Ledger) -> None:
    evil = JSONResponse({"sha": SHA, "siblings": [{"rfilename": "../../x", "size": 1}]})
    scripted.answer = hub_of([listing_row()], {"owner/name": evil})
    assert crawl(scripted.endpoint, ledger, "bert").frame["reason"].item() == "unsafe_file_name"
    again = crawl(scripted.endpoint, ledger, "bert")
    assert again.num_requested == 0
    assert again.frame["reason"].item() == "unsafe_file_name"


def test_a_listing_that_breaks_off_leaves_the_ledger_as_it_was(
    hub_folder: Path, endpoint: str, scripted: ScriptedHub, ledger: Ledger
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    crawl(endpoint, ledger)
    before = ledger.read_repos("mlp")
    scripted.answer = lambda _: Response(json.dumps({"error": "no"}))
    with pytest.raises(HubError, match="must be a JSON list"):
        crawl(scripted.endpoint, ledger)
    assert ledger.read_repos("mlp").equals(before)


def test_a_family_that_a_scan_has_listed_is_asked_for_its_details_only(
    hub_folder: Path, endpoint: str, scripted: ScriptedHub, tmp_path: Path, ledger: Ledger
) -> None:
    for number in range(3):
        write_repo(hub_folder, f"zoo/m{number}", weights=make_weights(number))
    write_repo(hub_folder, "zoo/other", config={"model_type": "cnn"})
    write_repo(hub_folder, "zoo/off", weights=make_weights(9), settings={"disabled": True})
    book = ScanBook.of(ledger.store)
    scan_hub(connect(endpoint), book, now=NOW)
    by_book = crawl(endpoint, ledger, book=book)
    by_list = crawl(endpoint, Ledger(store=Store.open(tmp_path / "other")))
    assert by_book.frame.equals(by_list.frame)
    assert by_book.changes == by_list.changes
    assert book.families() == Counter(map(family_of, connect(endpoint).list_models()))
    shutil.move(hub_folder / "zoo" / "m0", hub_folder / "zoo" / "renamed")
    shutil.rmtree(hub_folder / "zoo" / "m1")
    scan_hub(connect(endpoint), book, now=LATER, full=True)
    scripted.answer = lambda _: Response(status_code=404)  # nothing new: nobody is asked
    again = crawl(scripted.endpoint, ledger, book=book)
    assert sorted(again.changes.values()) == ["gone", "renamed"]
    assert row_of(again, "zoo/renamed")["aliases"] == ["zoo/m0"]
    assert scripted.requests == []


def test_malformed_rows_of_a_scan_are_those_of_a_listing(
    scripted: ScriptedHub, tmp_path: Path, ledger: Ledger
) -> None:
    rows = [listing_row(), listing_row(id="owner/broken", _id="5" * 24, sha="no sha")]
    scripted.answer = hub_of(rows, {"owner/name": JSONResponse({"sha": SHA, "siblings": []})})
    book = ScanBook.of(ledger.store)
    scan_hub(connect(scripted.endpoint), book, now=NOW)
    by_book = crawl(scripted.endpoint, ledger, "bert", book=book)
    by_list = crawl(scripted.endpoint, Ledger(store=Store.open(tmp_path / "other")), "bert")
    assert by_book.num_malformed == 1
    assert by_book.frame.equals(by_list.frame)


def test_a_book_that_is_older_than_the_ledger_or_not_whole_is_not_used(
    hub_folder: Path, endpoint: str, ledger: Ledger
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    book = ScanBook.of(ledger.store)
    assert crawl(endpoint, ledger, book=book).book_digest == ""  # no scan of it has ended
    scan_hub(connect(endpoint), book, now=NOW)
    write_repo(hub_folder, "zoo/b", weights=make_weights(1))
    listed = crawl(endpoint, ledger, now=LATER)
    behind = crawl(endpoint, ledger, now=LATER, book=book)
    assert (listed.num_new, behind.num_gone, behind.book_digest) == (1, 0, "")
    scan_hub(connect(endpoint), book, now=LATER, full=True)
    ahead = crawl(endpoint, ledger, now=LATER + timedelta(days=1), book=book)
    assert ahead.changes == {}
    assert ahead.book_digest == book.look("mlp").digest
    assert set(ahead.frame["crawled_at"]) == {LATER}
