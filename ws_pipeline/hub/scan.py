"""One look at a whole hub: every repo by creation, or only what changed since the last look.

What it is: the loop of a scan. Each listing page is stored together with the cursor of the next, so
that a kill at any moment loses one page at most; every few pages are folded into the families;
the watermark moves when the last page is stored. What it is not: the details of single revisions
(``crawl``) or the segments (``scan_book``). Network and store I/O.

A full scan goes by creation time, which never changes, so nothing is skipped or doubled while the
hub moves under it; what it did not come across is gone. A scan of the recent changes goes from the
newest back to the watermark less an overlap. What changes during either has a later time than the
watermark will have, and is found by the next.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypedDict, Unpack

import polars as pl

from ws_pipeline.errors import HubError, Reason, StorageError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.pager import MAX_PAGES, Order, Page
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.scan_edition import Edition, Progress, ScanKind, moment_of
from ws_pipeline.hub.scan_rows import STATE_MALFORMED, parse_items

OVERLAP = timedelta(hours=1)
"""Looked at again: the hub's clocks and indexes do not agree to the second."""

MAX_AGE = timedelta(days=3)
"""A scan that was broken off longer ago begins anew: its cursor may mean nothing any more."""

FOLD_PAGES = 64
"""Pages that are folded at once: 64,000 rows take 40 MB."""

SCAN_PAGE_SIZE = 1000
"""The hub's own limit; the rows are light."""

SMALL_REPOS = 10_000
"""A book of so many repos is scanned in full every time: ten requests, and deletions show."""

FULL_EVERY = timedelta(days=7)
"""A larger one as often as this: deletions show in no list of changes."""

PATIENCE_SECONDS = 120.0
"""A scan of another process that stores no page for so long is dead; a page takes 20 s at most."""

POLL_SECONDS = 2.0

NUM_PROBED = 20
"""Rows that tell the hub's newest time; a broken one among them does not matter."""

_ORDERS: dict[ScanKind, Order] = {"full": "oldest", "recent": "recent"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanResult:
    """What a scan did; all zero where the book was already as new as asked.

    Attributes:
        kind: ``full`` or ``recent``, "" if nothing was to be done. num_pages, num_listed: What the
        hub sent, before a kill too. num_changed: Rows appended: new, changed, moved and gone repos.
        num_malformed: Rows in quarantine. families: Those touched. is_done: False for a scan that
        was asked to stop; the next call goes on there.
    """

    kind: str = ""
    num_pages: int = 0
    num_listed: int = 0
    num_changed: int = 0
    num_malformed: int = 0
    families: tuple[str, ...] = ()
    is_done: bool = True


class ScanOptions(TypedDict, total=False):
    """Those of :func:`scan_hub` that :func:`follow_hub` hands on."""

    page_size: int
    fold_pages: int
    on_progress: Callable[[Progress], None] | None
    should_stop: Callable[[], bool]


def needs_full_scan(edition: Edition, now: datetime) -> bool:
    """Say whether the next scan has to list everything: a small book, or a week since the last."""
    done = moment_of(edition.fully_scanned_at)
    return done is None or now - done > FULL_EVERY or edition.num_rows() <= SMALL_REPOS


def follow_hub(
    client: HubClient,
    book: ScanBook,
    *,
    now: datetime,
    sleep: Callable[[float], None] = time.sleep,
    **options: Unpack[ScanOptions],
) -> ScanResult:
    """Bring the book up to ``now`` by the kind of scan that it needs; several processes may ask.

    One of them scans, the others wait for it. If it dies, one of those goes on where it stopped.

    Raises:
        HubError: If a page cannot be had; what came before is kept, the next call goes on there.
    """
    while True:
        full = needs_full_scan(book.editions.last(), now)
        try:
            return scan_hub(client, book, now=now, full=full, **options)
        except StorageError as error:
            if error.reason != Reason.CONFLICT:
                raise
        _wait_for_other(book, sleep)


def _wait_for_other(book: ScanBook, sleep: Callable[[float], None]) -> None:
    """Wait until nobody scans, or until whoever does has stored nothing for a while."""
    number, waited_seconds = -1, 0.0
    while waited_seconds < PATIENCE_SECONDS:
        edition = book.editions.last()
        if edition.progress is None:
            return
        waited_seconds = waited_seconds + POLL_SECONDS if edition.number == number else 0.0
        number = edition.number
        sleep(POLL_SECONDS)


def scan_hub(
    client: HubClient,
    book: ScanBook,
    *,
    now: datetime,
    full: bool = False,
    page_size: int = SCAN_PAGE_SIZE,
    fold_pages: int = FOLD_PAGES,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ScanResult:
    """Bring the book up to ``now``; a scan that was killed is taken up where it stopped.

    Args:
        client: The hub.
        book: What is known; every page that comes is stored.
        now: Time of the scan, with a time zone. A book scanned at this time or later is left as
            it is, so that a repeated call is free.
        full: List all repos and mark those that are gone, instead of the recent changes only. The
            first scan of a book is always full.
        page_size: Rows per request.
        fold_pages: Pages between two changes of the families.
        on_progress: Called after every page.
        should_stop: Asked after every page; True ends the call, and the next goes on there.

    Raises:
        HubError: If a page cannot be had; what came before is kept, the next call goes on there.
        StorageError: If another scan of the same store is at work (``conflict``).
    """
    run = functools.partial(
        _run,
        *(client, book),
        page_size=page_size,
        fold_pages=fold_pages,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    result = ScanResult()
    edition = book.editions.last()
    if edition.progress is not None and _is_stale(edition.progress, now):
        edition = book.abandon(edition)
    if edition.progress is not None:
        edition, result = run(edition)
    if not result.is_done:
        return result
    if _is_done(edition, now, full=full):
        book.editions.sweep(edition)
        return result
    kind: ScanKind = "full" if full or not edition.watermark else "recent"
    edition = replace(edition, progress=_begin(client, kind, now))
    return run(edition)[1]


def _is_stale(progress: Progress, now: datetime) -> bool:
    started = moment_of(progress.started)
    return started is not None and now - started > MAX_AGE


def _is_done(edition: Edition, now: datetime, *, full: bool) -> bool:
    done = moment_of(edition.fully_scanned_at if full else edition.scanned_at)
    return done is not None and done >= now


def _begin(client: HubClient, kind: ScanKind, now: datetime) -> Progress:
    """Return the progress of a scan that begins now, with the hub's own newest time."""
    newest = ""
    for page in client.list_pages(order="recent", page_size=NUM_PROBED):
        newest = _newest(parse_items(page.items), now)
        break
    return Progress(kind=kind, started=now.astimezone(UTC).isoformat(), newest=newest)


def _newest(rows: pl.DataFrame, now: datetime) -> str:
    """Return the newest change among rows, but not one that lies in our future."""
    newest = rows["last_modified"].max()
    if not isinstance(newest, datetime):
        return ""
    return min(newest, now.astimezone(UTC)).isoformat(timespec="microseconds")


def _run(
    client: HubClient,
    book: ScanBook,
    edition: Edition,
    *,
    page_size: int,
    fold_pages: int,
    on_progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool],
) -> tuple[Edition, ScanResult]:
    progress = edition.progress
    if progress is None:
        raise HubError("There is no scan to run.")
    pages = client.list_pages(
        order=_ORDERS[progress.kind], cursor=progress.cursor, page_size=page_size
    )
    while True:
        if len(edition.pages) >= fold_pages or (progress.is_listed and edition.pages):
            edition = book.fold(edition)
            book.editions.sweep(edition)
            progress = edition.progress or progress
        if progress.is_listed:
            break
        rows, progress = _take(next(pages), progress, edition.watermark)
        edition = book.add_page(edition, rows, progress)
        if on_progress is not None:
            on_progress(progress)
        if not progress.is_listed and should_stop():
            return edition, replace(_sum_up(progress), is_done=False)
    edition, gone = book.finish(edition, is_there=functools.partial(_is_there, client))
    book.editions.sweep(edition)
    return edition, _sum_up(progress, gone)


def _is_there(client: HubClient, hub_id: str, repo_id: str) -> bool:
    """Ask the hub for one repo; what cannot be asked counts as there."""
    try:
        info = client.repo_info(repo_id, "main", blobs=False)
    except HubError as error:
        return error.reason not in (Reason.NOT_FOUND, Reason.PRIVATE, Reason.DISABLED)
    return bool(info.get("_id", hub_id) == hub_id)


def _take(page: Page, progress: Progress, watermark: str) -> tuple[pl.DataFrame, Progress]:
    """Return a page's rows and how far the scan is with them."""
    rows = parse_items(page.items)
    malformed = rows["state"] == STATE_MALFORMED
    num_pages = progress.num_pages + 1
    if num_pages > MAX_PAGES:
        raise HubError(f"The hub's listing has no end after {MAX_PAGES} pages; report it.")
    is_listed = not page.cursor or _reaches(rows, progress, watermark)
    return rows, replace(
        progress,
        cursor=page.cursor,
        is_listed=is_listed,
        num_pages=num_pages,
        num_listed=progress.num_listed + rows.height,
        num_malformed=progress.num_malformed + int(malformed.sum()),
    )


def _reaches(rows: pl.DataFrame, progress: Progress, watermark: str) -> bool:
    """Say whether a page lies wholly before the watermark; one odd time does not end a scan."""
    newest = rows["last_modified"].max()
    known = moment_of(watermark)
    if progress.kind == "full" or known is None or not isinstance(newest, datetime):
        return False
    return newest < known - OVERLAP


def _sum_up(progress: Progress, gone: pl.DataFrame | None = None) -> ScanResult:
    touched = set() if gone is None else set(gone["family"].unique())
    return ScanResult(
        kind=progress.kind,
        num_pages=progress.num_pages,
        num_listed=progress.num_listed,
        num_changed=progress.num_changed + (0 if gone is None else gone.height),
        num_malformed=progress.num_malformed,
        families=tuple(sorted({*progress.families, *touched})),
    )
