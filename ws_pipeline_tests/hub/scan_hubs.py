"""Simulated hubs that a test serves, and what a scan left of them."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ws_pipeline.hub.scan import ScanResult, scan_hub
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.server import serve_app_in_thread
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.hub.server.simulation_routes import add_faults, make_simulation_app
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.scripted_hub import TOKEN, connect

START = datetime(2026, 11, 1, tzinfo=UTC)


def make_hub(num_repos: int, *, seed: int, **options: Any) -> SimulatedHub:
    """A hub of few families: each costs a segment, and a segment costs an fsync."""
    return SimulatedHub(num_repos, seed=seed, **{"num_families": 8} | options)


@contextlib.contextmanager
def serve(hub: SimulatedHub, *, faults: float = 0.0, seed: int = 0) -> Iterator[str]:
    app = make_simulation_app(hub)
    if faults:
        app = add_faults(app, share=faults, seed=seed, hang_seconds=0.05)
    with serve_app_in_thread(app) as endpoint:
        yield endpoint


def scan(endpoint: str, book: ScanBook, *, day: int = 0, **options: Any) -> ScanResult:
    options = {"page_size": 25, "fold_pages": 3} | options
    return scan_hub(
        connect(endpoint, token=TOKEN), book, now=START + timedelta(days=day), **options
    )


def open_book(folder: Path) -> ScanBook:
    return ScanBook.of(Store.open(folder))


def stored(book: ScanBook) -> dict[str, bytes]:
    """Every byte of a book."""
    return {key: book.folder.read(key) for key in book.folder.keys("scan")}


def everything(book: ScanBook) -> pl.DataFrame:
    """All rows of all families, by family and hub_id."""
    return pl.concat([book.read(family) for family in book.editions.last().families])
