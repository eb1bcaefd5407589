"""Every stage that talks to a hub, over a simulated one: scan, crawl, triage, download."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from ws_pipeline.errors import HubError
from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.download import download_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.repo import TRANSIENT_REASONS
from ws_pipeline.hub.scan import scan_hub
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.selection import SelectionPolicy, select_family
from ws_pipeline.hub.triage import triage_family
from ws_pipeline.storage.store import Store
from ws_pipeline.weights.header import parse_header_record
from ws_pipeline_tests.hub.scripted_hub import TOKEN, connect

START = datetime(2026, 11, 1, tzinfo=UTC)
VOLATILE = ("attempt", "reused", "crawled_at")
MAX_RUNS = 12


def run_stages(endpoint: str, store: Store, *, day: int, full: bool = True) -> pl.DataFrame:
    """One nightly run over all families; return the ledger."""
    client, book = connect(endpoint, token=TOKEN), ScanBook.of(store)
    ledger, now = Ledger(store=store), START + timedelta(days=day)
    scan_hub(client, book, now=now, full=full, page_size=50)
    for family in book.families():
        repos = crawl_family(client, ledger, family, now=now, book=book).frame
        headers = triage_family(client, store, repos, parse=parse_header_record)
        selection = select_family(repos, headers, SelectionPolicy())
        files = download_family(client, store, repos, selection, headers)
        for stage, frame in {"headers": headers, "selection": selection, "files": files}.items():
            ledger.record_verdicts(family, stage, frame)
            store.tables.write(f"hub/{stage}/{family}", frame.drop("reused"))
    return read_ledger(store)


def run_until_settled(endpoint: str, store: Store, *, day: int) -> tuple[pl.DataFrame, int]:
    """Run until nothing is left that may come yet; return the ledger and the number of runs."""
    transient = [str(reason) for reason in TRANSIENT_REASONS]
    waiting = pl.DataFrame(schema={"repo_id": str, "reason": str, "detail": str})
    for number in range(1, MAX_RUNS + 1):
        try:
            ledger = run_stages(endpoint, store, day=day)
        except HubError:  # the listing broke off; the next run takes it up
            continue
        waiting = ledger.filter(pl.col("reason").is_in(transient), status="refused")
        closed = pl.col("reason").is_in(["disabled", "gated", "private"])
        if waiting.filter(~closed).is_empty():
            return ledger, number
    raise AssertionError(waiting.select("repo_id", "reason", "detail").to_dicts())


def read_ledger(store: Store) -> pl.DataFrame:
    """All rows of all families, without what counts runs."""
    ledger = Ledger(store=store)
    return pl.concat([ledger.read(family) for family in ledger.families()]).drop(VOLATILE)


def stored_bytes(store: Store, *prefixes: str) -> dict[str, bytes]:
    """Every object below some folders of a store."""
    folder = store.blobs.folder
    return {key: folder.read(key) for prefix in prefixes for key in folder.keys(prefix)}


def count_by(frame: pl.DataFrame, name: str) -> dict[Any, int]:
    """How often each value of a column comes."""
    return dict(frame.group_by(name).len().iter_rows())
