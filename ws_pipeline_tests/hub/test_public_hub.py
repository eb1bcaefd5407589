"""A read-only look at the public hub: ``pytest -m network --force-enable-socket`` by hand."""

import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ws_pipeline.hub.budget import RateBudget
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.listing import parse_detail
from ws_pipeline.hub.scan import scan_hub
from ws_pipeline.hub.scan_rows import STATE_LISTED, parse_items
from ws_pipeline_tests.hub.scan_hubs import everything, open_book

ENDPOINT = "https://huggingface.co"
NUM_PAGES = 3

pytestmark = pytest.mark.network


def connect_public(tmp_path: Path) -> HubClient:
    return HubClient(ENDPOINT, budget=RateBudget(tmp_path / "budget.json"))


def test_both_listings_come_in_their_order(tmp_path: Path) -> None:
    client = connect_public(tmp_path)
    for order, column, descending in (
        ("oldest", "created_at", False),
        ("recent", "last_modified", True),
    ):
        pages = itertools.islice(client.list_pages(order=order, page_size=100), NUM_PAGES)
        rows = parse_items(item for page in pages for item in page.items)
        assert rows.height == 100 * NUM_PAGES
        assert (rows["state"] == STATE_LISTED).mean() > 0.95
        assert rows[column].is_sorted(descending=descending)


def test_a_scan_that_stops_goes_on_at_its_cursor(tmp_path: Path) -> None:
    client, book = connect_public(tmp_path), open_book(tmp_path / "book")
    now = datetime.now(UTC)
    for _ in range(NUM_PAGES):
        with pytest.raises(KeyboardInterrupt):
            scan_hub(client, book, now=now, page_size=100, fold_pages=1, on_progress=_stop)
    book.fold(book.editions.last())
    assert everything(book).height == 100 * NUM_PAGES


def test_a_detail_has_files_with_sizes(tmp_path: Path) -> None:
    detail = parse_detail(connect_public(tmp_path).repo_info("hf-internal-testing/tiny-random-bert",
                                                             "main"))  # fmt: skip
    assert all(file["num_bytes"] > 0 for file in detail["files"])


def _stop(_: object) -> None:
    raise KeyboardInterrupt
