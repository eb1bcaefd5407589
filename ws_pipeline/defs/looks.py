"""When the hub was looked at, and which families a scan of the whole of it has moved since.

Belongs here: the book and the event log side by side. Does not: the scan itself (``hub.scan``), or
running anything. A materialisation of `hub/repos` says which state of the family in the book it was
made from; while the book says the same, there is nothing to crawl. Network and store I/O where a
scan is asked for; reads the event log.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ws_pipeline.defs.bars import count_bar
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.scan import ScanResult, follow_hub
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.scan_edition import Edition, Progress, moment_of

BOOK_DIGEST = "book_digest"
LOOKED_AT = "looked_at"
"""Keys in the metadata of `hub/repos`."""

MAX_AGE = timedelta(hours=36)
"""A nightly crawl may be missed by half a day before its families count as stale."""

Metadata = Mapping[str, Any]


def scan_whole_hub(client: HubClient, book: ScanBook, *, now: datetime) -> ScanResult:
    """Bring the book up to ``now``, with a bar; free where another run has done it already."""
    num_known = book.editions.last().num_rows() or None
    with count_bar("scan", "repo") as show:

        def on_progress(progress: Progress) -> None:
            show(progress.num_listed, num_known if progress.kind == "full" else None)

        return follow_hub(client, book, now=now, on_progress=on_progress)


def has_moved(edition: Edition, family: str, made: Metadata) -> bool:
    """Say whether the book knows of something in a family that its last crawl did not see."""
    return made.get(BOOK_DIGEST) != edition.family_digest(family)


def choose_moved(
    families: Iterable[str], has_moved: Callable[[str], bool], *, after: str, max_families: int
) -> tuple[list[str], str]:
    """Return at most so many moved families, going round from ``after``, and where to go on.

    Args:
        families: All of them.
        has_moved: Asked for one after the other, until there are enough.
        after: The last one that was looked at before; "" begins anew.
        max_families: How many to return.
    """
    names = sorted(families)
    names = [name for name in names if name > after] + [name for name in names if name <= after]
    chosen: list[str] = []
    for name in names:
        if has_moved(name):
            chosen.append(name)
        if len(chosen) == max_families:
            return chosen, name
    return chosen, ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Freshness:
    """When a family was last looked at, and whether that is too long ago."""

    looked_at: datetime | None
    is_stale: bool


def judge_freshness(
    edition: Edition, family: str, made: Metadata, *, now: datetime, max_age: timedelta = MAX_AGE
) -> Freshness:
    """Judge a family: its own crawl counts, and a scan of the whole hub that found nothing new.

    Args:
        edition: Where the book stands.
        family: Which.
        made: Metadata of its last `hub/repos`; empty if there is none.
        now: Time of the judgement, with a time zone.
        max_age: Older is stale.
    """
    looked_at = moment_of(str(made.get(LOOKED_AT, "")))
    scanned_at = moment_of(edition.scanned_at)
    if looked_at and scanned_at and not has_moved(edition, family, made):
        looked_at = max(looked_at, scanned_at)
    return Freshness(looked_at=looked_at, is_stale=looked_at is None or now - looked_at > max_age)
