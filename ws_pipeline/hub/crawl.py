"""One look at a family on the hub, and what changed since the last one.

What it is: a full listing (or what a scan of the whole hub stored of one, ``scan_book``), then one
detail request for each repo whose revision the ledger does not know, then the new table. Repos that
are gone become tombstones, renamed ones keep their old name as an alias. What it is not: a look
into files (``triage``). Network and store I/O.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from ws_pipeline.errors import HubError, Reason, RefusedError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.families import family_of, tags_of
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.listing import parse_detail, parse_listing, quarantine
from ws_pipeline.hub.repo import (
    KEY_SCHEMA,
    REPO_SCHEMA,
    STATUS_DELETED,
    STATUS_LISTED,
    STATUS_REFUSED,
    TRANSIENT_REASONS,
    build_frame,
)
from ws_pipeline.hub.scan_book import FamilyLook, ScanBook
from ws_pipeline.hub.scan_rows import STATE_LISTED, STATE_MALFORMED
from ws_pipeline.hub.workers import map_in_order

_EMPTY: dict[str, Any] = {
    "licence": "",
    "gated": "",
    "private": False,
    "disabled": False,
    "library": "",
    "pipeline_tag": "",
    "tags": [],
    "model_type": "",
    "architectures": [],
    "base_models": [],
    "base_model_relation": "",
    "files": [],
    "card": "{}",
    "config": "{}",
    "aliases": [],
}
"""What a row says before its details are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlResult:
    """What a crawl found.

    Attributes:
        family: Which. frame: The family's ``hub/repos`` table (REPO_SCHEMA), ordered by hub_id.
        changes: hub_id to ``new``, ``changed``, ``renamed``, ``gone`` or ``back``; others are as
        before. num_listed: Rows that the hub listed for the family. num_new: Repos that the ledger
        did not know. num_changed: Known repos at another revision. num_gone: Repos that are not
        listed any more. num_requested: Detail requests that were made, or would be in a dry run.
        num_malformed: Listed rows that broke a bound. looked_at: When the hub was listed.
        book_digest: Of the family in the book that was read; "" where the family was listed alone.
    """

    family: str
    frame: pl.DataFrame
    changes: Mapping[str, str] = field(default_factory=dict)
    num_listed: int
    num_new: int
    num_changed: int
    num_gone: int
    num_requested: int
    num_malformed: int
    looked_at: datetime
    book_digest: str = ""


def crawl_family(
    client: HubClient,
    ledger: Ledger,
    family: str,
    *,
    now: datetime,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    book: ScanBook | None = None,
) -> CrawlResult:
    """Crawl a family and write its table into the ledger.

    A crawl of a hub on which nothing changed makes no detail request and gives a frame with the
    same ``repo.frame_digest``. A detail request that fails is a row with its reason, asked again
    next time.

    Args:
        client: The hub.
        ledger: What is known; updated unless ``dry_run``.
        family: As ``families.family_of`` names it.
        now: Time of the crawl, with a time zone. Rows that come from a book have that of its scan.
        dry_run: Only list: new and changed repos come without details, nothing is written.
        on_progress: Called with (details fetched, details to fetch).
        book: What a scan of the whole hub stored; the family is then not listed again. One whose
            first scan has not ended, or that is older than the ledger, is not used.

    Raises:
        HubError: If the listing itself cannot be had; the ledger is then left as it was.
    """
    before = ledger.read_repos(family)
    known = {row["hub_id"]: row for row in before.to_dicts()}
    look = None if book is None else _look_into(book, family, before["crawled_at"].max())
    listed = _list_family(client, family) if look is None else _read_family(look.rows)
    if look is not None and look.scanned_at is not None:
        now = look.scanned_at
    changes: dict[str, str] = {}
    rows = [_carry_over(known.get(item["hub_id"]), item, changes) for item in listed.values()]
    stale = [row for row in rows if not row["reused"] and row["status"] == STATUS_LISTED]
    if not dry_run:
        _fetch_details(client, stale, on_progress)
    gone = [row for hub_id, row in known.items() if hub_id not in listed]
    rows += [_bury(row, changes) for row in gone]
    for row in rows:
        row["family"], row["crawled_at"] = family, now
    payload = {name: dtype for name, dtype in REPO_SCHEMA.items() if name not in KEY_SCHEMA}
    frame = build_frame(rows, payload)
    if not dry_run:
        ledger.write_repos(family, frame)
    kinds = list(changes.values())
    return CrawlResult(
        family=family,
        frame=frame,
        changes=changes,
        num_listed=len(listed),
        num_new=kinds.count("new"),
        num_changed=kinds.count("changed"),
        num_gone=kinds.count("gone"),
        num_requested=len(stale),
        num_malformed=sum(row["reason"] == Reason.MALFORMED_ROW for row in rows),
        looked_at=now,
        book_digest="" if look is None else look.digest,
    )


def _look_into(book: ScanBook, family: str, crawled_at: Any) -> FamilyLook | None:
    """Return what the book says of a family, None where the ledger knows of later times."""
    look = book.look(family)
    if look.scanned_at is None or (crawled_at is not None and look.scanned_at < crawled_at):
        return None
    return look


def _list_family(client: HubClient, family: str) -> dict[str, dict[str, Any]]:
    """Return the family's listed rows by hub_id; the last of a doubled one counts."""
    listed: dict[str, dict[str, Any]] = {}
    for item in client.list_models(tags=tags_of(family)):
        if family_of(item) != family:
            continue
        try:
            row = parse_listing(item)
        except RefusedError as error:
            row = quarantine(item, str(error))
        listed[row["hub_id"]] = row
    return listed


_LISTED_COLUMNS = (
    *("hub_id", "repo_id", "revision", "created_at", "last_modified"),
    *("gated", "private", "disabled", "aliases"),
)
_MALFORMED_COLUMNS = ("hub_id", "repo_id", "revision", "reason", "detail")


def _read_family(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the same rows as :func:`_list_family`, from a scan; with the names it has seen."""
    columns = {STATE_LISTED: _LISTED_COLUMNS, STATE_MALFORMED: _MALFORMED_COLUMNS}
    return {
        row["hub_id"]: {name: row[name] for name in columns[row["state"]]}
        for row in rows.filter(pl.col("state").is_in(list(columns))).to_dicts()
    }


def _carry_over(
    old: dict[str, Any] | None, item: dict[str, Any], changes: dict[str, str]
) -> dict[str, Any]:
    """Return a listed repo's row: with the known details if they are of the same revision."""
    hub_id = item["hub_id"]
    aliases = _aliases(old, item)
    if "reason" in item:  # quarantined
        if old is None:
            changes[hub_id] = "new"
        return _refused(_EMPTY | item, item["reason"], item["detail"], reused=old is not None)
    if old is None or old["revision"] != item["revision"]:
        changes[hub_id] = "new" if old is None else "changed"
        return _fresh(item, aliases, attempt=1)
    if old["repo_id"] != item["repo_id"]:
        changes[hub_id] = "renamed"
    if old["status"] == STATUS_DELETED:
        changes[hub_id] = "back"
    if old["reason"] in TRANSIENT_REASONS and not old["files"]:
        return _fresh(item, aliases, attempt=old["attempt"] + 1)
    row = old | item | {"aliases": aliases, "reused": True}
    if old["status"] == STATUS_REFUSED and old["reason"] not in TRANSIENT_REASONS:
        return row
    return _judge_listing(row)


def _fresh(item: dict[str, Any], aliases: list[str], *, attempt: int) -> dict[str, Any]:
    row = _EMPTY | item | {"aliases": aliases, "attempt": attempt, "reused": False}
    return _judge_listing(row)


def _judge_listing(row: dict[str, Any]) -> dict[str, Any]:
    """Refuse what the listing alone rules out; gated repos are asked, a token may open them."""
    if row["disabled"]:
        return _refused(row, Reason.DISABLED, "The hub has disabled it.", reused=row["reused"])
    return row | {"accepted": True, "reason": "", "detail": "", "status": STATUS_LISTED}


def _refused(
    row: dict[str, Any], reason: Reason | str, detail: str, *, reused: bool
) -> dict[str, Any]:
    verdict = {"accepted": False, "reason": str(reason), "detail": detail, "reused": reused}
    return {"attempt": 1} | row | verdict | {"status": STATUS_REFUSED}


def _bury(row: dict[str, Any], changes: dict[str, str]) -> dict[str, Any]:
    """Return the tombstone of a repo that is not listed any more; its details are kept."""
    if row["status"] == STATUS_DELETED:
        return row | {"reused": True}
    changes[row["hub_id"]] = "gone"
    detail = "It is not listed in this family any more: deleted, made private, or changed in kind."
    verdict = _refused(row, Reason.NOT_FOUND, detail, reused=False)
    return verdict | {"status": STATUS_DELETED}


def _aliases(old: dict[str, Any] | None, item: dict[str, Any]) -> list[str]:
    names = [] if old is None else [*old["aliases"], old["repo_id"]]
    names += item.get("aliases", [])
    return [name for name in dict.fromkeys(names) if name != item["repo_id"]]


def _fetch_details(
    client: HubClient,
    rows: list[dict[str, Any]],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Fill in the details of rows, in place."""
    details = map_in_order(lambda row: _fetch(client, row), rows)
    for index, (row, detail) in enumerate(zip(rows, details, strict=True), start=1):
        row.update(detail)
        if on_progress is not None:
            on_progress(index, len(rows))


def _fetch(client: HubClient, row: dict[str, Any]) -> dict[str, Any]:
    """Return what one detail request says, or the refusal that it ends in."""
    try:
        info = client.repo_info(row["repo_id"], row["revision"])
        detail = parse_detail(info)
    except (HubError, RefusedError) as error:
        return _refused(row, error.reason, str(error), reused=False)
    if info.get("sha") != row["revision"]:
        message = f"Asked for revision {row['revision'][:12]}, the hub answered with another."
        return _refused(row, Reason.UNREACHABLE, message, reused=False)
    return detail
