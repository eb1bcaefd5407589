"""What a crawl changed, as a table; and a crawl that only looks. Does network and store I/O."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from ws_pipeline.defs.bars import count_bar
from ws_pipeline.defs.looks import scan_whole_hub
from ws_pipeline.defs.resources import HomeResource, StoreResource, open_hub
from ws_pipeline.errors import MissingInputError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.crawl import CrawlResult, crawl_family
from ws_pipeline.hub.families import check_family
from ws_pipeline.hub.forecast import FORECAST_SCHEMA, MAX_ASKED, forecast_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.repo import REPO_SCHEMA, STATUS_DELETED
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.overlay import OverlayFolder
from ws_pipeline.storage.store import Store

COLUMNS = ("family", "repo_id", "revision", "status", "reason", "detail")
_READ = ("hub_id", *COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class LookedAt:
    """What a crawl that only looks found.

    Attributes:
        ledger: Family to the rows that a crawl would write. forecast: FORECAST_SCHEMA, of all
        families.
    """

    ledger: Mapping[str, pl.DataFrame]
    forecast: pl.DataFrame


def store_location(home: Path) -> str:
    """Where the home's store lies, whether or not there is one yet."""
    return StoreResource(home=HomeResource(path=str(home))).location


def read_ledger(home: Path) -> dict[str, pl.DataFrame]:
    """Family to the crawl's rows as they are; empty for a home without a store."""
    location = store_location(home)
    if "://" not in location and not Path(location).is_dir():
        return {}
    ledger = Ledger(store=Store.open(location))
    return {name: ledger.read_repos(name).select(_READ) for name in ledger.families()}


def look_at_hub(home: Path, *, endpoint: str, families: Sequence[str], now: datetime) -> LookedAt:
    """Say what a crawl would find and a refresh fetch; nothing is written that stays."""
    with open_hub(home, endpoint) as hub, TemporaryDirectory(prefix="ws-pipeline-") as temporary:
        location = store_location(home)
        is_there = "://" in location or Path(location).is_dir()
        store = Store.open(location if is_there else f"{temporary}/store")
        client, ledger, book = hub.client(), Ledger(store=store), hub.book(store)
        names = sorted(map(check_family, families))
        if not names:
            book = _above(book, Path(temporary))
            scan_whole_hub(client, book, now=now)
            names = sorted({*book.families(), *ledger.families()})
        used = None if families else book
        crawls = [
            crawl_family(client, ledger, name, now=now, dry_run=True, book=used) for name in names
        ]
        return LookedAt(
            ledger={crawl.family: crawl.frame.select(_READ) for crawl in crawls},
            forecast=_forecast(client, ledger, crawls),
        )


def _forecast(client: HubClient, ledger: Ledger, crawls: Sequence[CrawlResult]) -> pl.DataFrame:
    """Ask for as many details as are allowed, shared by the families as they have need of them."""
    needed = sum(crawl.num_requested for crawl in crawls)
    share = min(1.0, MAX_ASKED / needed) if needed else 0.0
    found = [pl.DataFrame(schema=FORECAST_SCHEMA)]
    with count_bar("sizes", "repo") as show:
        for crawl in crawls:
            allowed = math.ceil(crawl.num_requested * share)
            found.append(forecast_family(client, ledger, crawl, max_asked=allowed))
            show(sum(frame.height for frame in found), None)
    return pl.concat(found)


def _above(book: ScanBook, folder: Path) -> ScanBook:
    """Return the book with every change that a scan makes kept in a folder of its own."""
    top = LocalFolder(root=str(folder / "scan"))
    return replace(book, folder=OverlayFolder(base=book.folder, top=top))


def require_families(named: Sequence[str], ledger: Mapping[str, pl.DataFrame]) -> None:
    """Stop where a family was named that has not one repo.

    Args:
        named: By the caller.
        ledger: Family to the rows that a crawl wrote or would write.

    Raises:
        MissingInputError: With the closest family that has some.
    """
    known = [name for name, rows in ledger.items() if rows.height]
    for name in sorted(set(named) - set(known)):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise MissingInputError(
            f"The hub has no repo of family {name!r}.{hint} A family is the model_type in a "
            "config.json, else the library; ws-pipeline hub scan --dry-run lists all that there "
            "are."
        )


def compare_ledgers(
    before: Mapping[str, pl.DataFrame], after: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """One row per repo after the crawl, with what changed: `new`, `changed`, `gone` or ""."""
    empty = pl.DataFrame(schema={name: REPO_SCHEMA[name] for name in _READ})
    frames = [_compare(before.get(name, empty), frame) for name, frame in sorted(after.items())]
    schema = dict.fromkeys([*COLUMNS, "change"], pl.String)
    return pl.concat([pl.DataFrame(schema=schema), *frames])


def _compare(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    known = before.select("hub_id", old_revision="revision", old_status="status")
    is_gone = (pl.col("status") == STATUS_DELETED) & (pl.col("old_status") != STATUS_DELETED)
    return (
        after.join(known, on="hub_id", how="left", maintain_order="left")
        .with_columns(
            change=pl.when(pl.col("old_revision").is_null())
            .then(pl.lit("new"))
            .when(is_gone)
            .then(pl.lit("gone"))
            .when(pl.col("old_revision") != pl.col("revision"))
            .then(pl.lit("changed"))
            .otherwise(pl.lit(""))
        )
        .select(*COLUMNS, "change")
    )
