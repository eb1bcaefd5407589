"""What a crawl changed, as a table; and a crawl that only looks. Does network and store I/O."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from ws_pipeline.defs.resources import HomeResource, StoreResource, serve_endpoint
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.families import check_family, discover_families
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.repo import REPO_SCHEMA, STATUS_DELETED
from ws_pipeline.storage.store import Store

COLUMNS = ("family", "repo_id", "revision", "status", "reason", "detail")


def store_location(home: Path) -> str:
    """Where the home's store lies, whether or not there is one yet."""
    return StoreResource(home=HomeResource(path=str(home))).location


def read_ledger(home: Path) -> dict[str, pl.DataFrame]:
    """Family to the crawl's rows as they are; empty for a home without a store."""
    location = store_location(home)
    if "://" not in location and not Path(location).is_dir():
        return {}
    ledger = Ledger(store=Store.open(location))
    return {name: ledger.read_repos(name) for name in ledger.families()}


def look_at_hub(
    home: Path, *, endpoint: str, families: Sequence[str], now: datetime
) -> dict[str, pl.DataFrame]:
    """Family to the rows that a crawl would write; nothing is written."""
    with ExitStack() as stack:
        url = stack.enter_context(serve_endpoint(home, endpoint))
        location = store_location(home)
        if "://" not in location and not Path(location).is_dir():
            location = stack.enter_context(TemporaryDirectory())
        ledger = Ledger(store=Store.open(location))
        client = HubClient(url)
        names = sorted(map(check_family, families)) or sorted(discover_families(client))
        return {
            name: crawl_family(client, ledger, name, now=now, dry_run=True).frame for name in names
        }


def compare_ledgers(
    before: Mapping[str, pl.DataFrame], after: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """One row per repo after the crawl, with what changed: `new`, `changed`, `gone` or ""."""
    empty = pl.DataFrame(schema=REPO_SCHEMA)
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
