"""What a whole-hub scan keeps of each repo: one light row, and the index that finds it again.

What it is: the columns of the scan's segments, how listing items become rows, what makes two looks
at a repo the same, and how several looks become one (the last counts, older names are aliases).
What it is not: the details of a revision (``crawl``), or where the segments lie (``scan_book``).
Pure, no I/O.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from ws_pipeline.errors import RefusedError
from ws_pipeline.hub.families import family_of
from ws_pipeline.hub.listing import parse_listing, quarantine
from ws_pipeline.hub.repo import Schema

_MOMENT = pl.Datetime("us", "UTC")

STATE_LISTED, STATE_MALFORMED = "listed", "malformed"
STATE_DELETED, STATE_MOVED = "deleted", "moved"  # moved: its row is now another family's

SCAN_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "repo_id": pl.String(),
    "revision": pl.String(),
    "family": pl.String(),
    "state": pl.String(),
    "reason": pl.String(),
    "detail": pl.String(),
    "created_at": _MOMENT,
    "last_modified": _MOMENT,
    "gated": pl.String(),
    "private": pl.Boolean(),
    "disabled": pl.Boolean(),
    "aliases": pl.List(pl.String()),
}
"""A segment's columns. Tags, files and cards belong to a revision and are asked for with it."""

INDEX_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "family": pl.String(),
    "digest": pl.UInt64(),
}
"""What is read to tell a changed repo from a known one: about 40 bytes per repo in memory."""

GONE_DIGEST = 0
"""In the index: deleted. No row has it, so a repo that is back counts as changed."""

_DEFAULTS: dict[str, Any] = {
    "reason": "",
    "detail": "",
    "created_at": None,
    "last_modified": None,
    "gated": "",
    "private": False,
    "disabled": False,
    "aliases": [],
}


def parse_items(items: Iterable[object]) -> pl.DataFrame:
    """Return the rows (SCAN_SCHEMA and ``digest``) of a listing page; broken ones in quarantine."""
    rows = [_parse_item(item) for item in items]
    columns = {name: [row[name] for row in rows] for name in (*SCAN_SCHEMA, "digest")}
    return pl.DataFrame(columns, schema={**SCAN_SCHEMA, "digest": pl.UInt64()})


def _parse_item(item: object) -> dict[str, Any]:
    try:
        row = _DEFAULTS | parse_listing(item) | {"state": STATE_LISTED}
    except RefusedError as error:
        row = _DEFAULTS | quarantine(item, str(error)) | {"state": STATE_MALFORMED}
    row["family"] = family_of(item)
    row["digest"] = _digest(row)
    return row


def _digest(row: dict[str, Any]) -> int:
    """Return 64 bits of a row's content; one in 10^13 changes of a repo goes unseen until the next.

    Not polars' own hash, which differs between its versions.
    """
    parts = [str(row[name]) for name in SCAN_SCHEMA if name != "aliases"]
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) or 1


def merge_rows(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return one row per repo: the last, with all of its other names as aliases; by hub_id.

    Merging some of the frames first gives the same rows.

    Args:
        frames: SCAN_SCHEMA, older to newer.
    """
    rows = pl.concat(frames)
    again = rows.filter(pl.col("hub_id").is_duplicated())
    if again.is_empty():
        return rows.sort("hub_id")
    names: dict[str, set[str]] = {}
    for hub_id, repo_id, aliases in again.select("hub_id", "repo_id", "aliases").iter_rows():
        names.setdefault(hub_id, set()).update((repo_id, *aliases))
    merged = rows.unique("hub_id", keep="last", maintain_order=True).sort("hub_id")
    current = zip(merged["hub_id"], merged["repo_id"], merged["aliases"], strict=True)
    aliases = [
        sorted(names[hub_id] - {repo_id}) if hub_id in names else list(old)
        for hub_id, repo_id, old in current
    ]
    return merged.with_columns(pl.Series("aliases", aliases, dtype=SCAN_SCHEMA["aliases"]))


def merge_index(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return one index row per repo: the last; ordered by hub_id."""
    rows = pl.concat(frames)
    return rows.unique("hub_id", keep="last", maintain_order=True).sort("hub_id")


def find_changes(seen: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return the rows to append: those that are new or differ, and what becomes of the old family.

    Args:
        seen: Rows in the order they came (SCAN_SCHEMA and ``digest``).
        known: The index's rows of the same repos.

    Returns:
        SCAN_SCHEMA and ``digest``, by family and hub_id. A repo whose family changed has a second
        row in its old one, with state ``moved``.
    """
    latest = seen.unique("hub_id", keep="last", maintain_order=True)
    old = known.select("hub_id", old_family="family", old_digest="digest")
    joined = latest.join(old, on="hub_id", how="left", maintain_order="left")
    changed = joined.filter(pl.col("digest").ne_missing(pl.col("old_digest")))
    moved = changed.filter(pl.col("family") != pl.col("old_family")).with_columns(
        family="old_family", state=pl.lit(STATE_MOVED)
    )
    columns = [*SCAN_SCHEMA, "digest"]
    return pl.concat([changed.select(columns), moved.select(columns)]).sort("family", "hub_id")


def index_of(changes: pl.DataFrame) -> pl.DataFrame:
    """Return the index rows (INDEX_SCHEMA) that follow from :func:`find_changes`."""
    current = changes.filter(pl.col("state") != STATE_MOVED)
    is_gone = pl.col("state") == STATE_DELETED
    return current.select(
        "hub_id",
        "family",
        digest=pl.when(is_gone).then(pl.lit(GONE_DIGEST, pl.UInt64)).otherwise("digest"),
    ).sort("hub_id")


def check_schema(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Return a frame that has exactly these columns.

    Raises:
        RefusedError: Otherwise.
    """
    if dict(frame.schema) != dict(schema):
        raise RefusedError(f"A segment of the scan has other columns than these: {frame.columns}.")
    return frame
