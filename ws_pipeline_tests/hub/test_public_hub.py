"""A read-only look at the public hub: ``pytest -m network --force-enable-socket`` by hand.

No token is sent. Without a network every test fails at once, with the same sentence.
"""

import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ws_pipeline.errors import HubError
from ws_pipeline.hub.budget import RateBudget
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.listing import parse_detail
from ws_pipeline.hub.retries import RetryPolicy
from ws_pipeline.hub.scan import scan_hub
from ws_pipeline.hub.scan_rows import STATE_LISTED, parse_items
from ws_pipeline.hub.triage import PREFIX_BYTES
from ws_pipeline.weights.header import parse_header_record
from ws_pipeline_tests.hub.scan_hubs import everything, open_book

ENDPOINT = "https://huggingface.co"
REPO = "openai-community/gpt2"
"""Public since 2019; one safetensors file of 548 MB, whose header is 14 kB."""
NUM_PAGES = 3

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def _reachable() -> None:
    why = ""
    try:
        next(HubClient(ENDPOINT, retries=RetryPolicy(max_attempts=1)).list_pages(page_size=1))
    except (HubError, RuntimeError) as error:  # the second: the test run itself blocks sockets
        why = f"{type(error).__name__}: {error}"
    if why:
        pytest.fail(
            f"{ENDPOINT} cannot be reached from here. These tests need a network and "
            f"`-m network --force-enable-socket`. {why}",
            pytrace=False,
        )


@pytest.fixture
def client(_reachable: None, tmp_path: Path) -> HubClient:
    return HubClient(ENDPOINT, budget=RateBudget(tmp_path / "budget.json"))


@pytest.mark.parametrize(
    ("order", "column", "descending"),
    [("oldest", "created_at", False), ("recent", "last_modified", True)],
)
def test_a_listing_comes_in_its_order(
    client: HubClient, order: str, column: str, descending: bool
) -> None:
    pages = itertools.islice(client.list_pages(order=order, page_size=100), NUM_PAGES)  # type: ignore[arg-type]
    rows = parse_items(item for page in pages for item in page.items)
    assert rows.height == 100 * NUM_PAGES
    listed = rows.filter(state=STATE_LISTED)
    assert listed.height > 0.95 * rows.height
    assert listed[column].is_sorted(descending=descending)


def test_a_scan_that_stops_goes_on_at_its_cursor(client: HubClient, tmp_path: Path) -> None:
    book = open_book(tmp_path / "book")
    now = datetime.now(UTC)
    for _ in range(NUM_PAGES):
        with pytest.raises(KeyboardInterrupt):
            scan_hub(client, book, now=now, page_size=100, fold_pages=1, on_progress=_stop)
    book.fold(book.editions.last())
    assert everything(book).height == 100 * NUM_PAGES


def test_a_header_is_read_by_range_and_a_small_file_is_verified(
    client: HubClient, tmp_path: Path
) -> None:
    info = client.repo_info(REPO, "main")
    files = {file["path"]: file for file in parse_detail(info)["files"]}
    where = (REPO, info["sha"])
    weights = files["model.safetensors"]
    assert len(weights["sha256"]) == 64
    head = client.read_range(*where, weights["path"], 0, PREFIX_BYTES)
    record = parse_header_record(head, weights["num_bytes"])
    assert len(record["tensors"]) > 100
    config = files["config.json"]
    client.download(
        *where, "config.json", tmp_path / "config.json",
        blob_id=config["blob_id"], num_bytes=config["num_bytes"],
    )  # fmt: skip
    assert b'"model_type": "gpt2"' in (tmp_path / "config.json").read_bytes()


def _stop(_: object) -> None:
    raise KeyboardInterrupt
