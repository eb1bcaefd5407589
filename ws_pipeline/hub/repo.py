"""The tables about repos: their columns, how stage frames are built, and what makes them equal.

What it is: the schema of ``hub/repos`` and the columns that every stage's table starts with. One
row per repo revision; a repo is known by the hub's immutable id, its name is an attribute. What it
is not: how a hub's JSON becomes a row (``listing``). No I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from ws_pipeline.errors import Reason, RefusedError, StorageError
from ws_pipeline.storage.snapshots import frame_digest as digest_of_frame

Schema = Mapping[str, Any]
"""Column to polars type. Not ``pl.DataType``, which run-time type checks in tests cannot take."""

KEY_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "repo_id": pl.String(),
    "revision": pl.String(),
    "accepted": pl.Boolean(),
    "reason": pl.String(),
    "detail": pl.String(),
    "reused": pl.Boolean(),
}
"""What every family-partitioned table starts with. ``reason`` is "" for an accepted row."""

FILE_STRUCT = pl.Struct(
    {
        "path": pl.String(),
        "num_bytes": pl.Int64(),
        "sha256": pl.String(),  # of large files; "" where the hub states only a blob id
        "blob_id": pl.String(),  # git's sha1 of the blob
    }
)

_MOMENT = pl.Datetime("us", "UTC")

REPO_SCHEMA: dict[str, pl.DataType] = {
    **KEY_SCHEMA,
    "family": pl.String(),
    "created_at": _MOMENT,
    "last_modified": _MOMENT,
    "licence": pl.String(),
    "gated": pl.String(),  # "", "auto" or "manual"
    "private": pl.Boolean(),
    "disabled": pl.Boolean(),
    "library": pl.String(),
    "pipeline_tag": pl.String(),
    "tags": pl.List(pl.String()),
    "model_type": pl.String(),
    "architectures": pl.List(pl.String()),
    "base_models": pl.List(pl.String()),
    "base_model_relation": pl.String(),
    "num_parameters": pl.Int64(),
    "files": pl.List(FILE_STRUCT),
    "card": pl.String(),
    "config": pl.String(),
    "aliases": pl.List(pl.String()),
    "status": pl.String(),
    "attempt": pl.Int32(),
    "crawled_at": _MOMENT,
}
"""The columns of ``hub/repos``, in order."""

VOLATILE_COLUMNS = (
    "reused",
    "crawled_at",
    "attempt",
    "status",
    "reason",
    "detail",
    "last_modified",
)
"""What may differ between two looks at a hub on which nothing changed. ``last_modified`` is among
them because a hub moves it for changes that leave the revision alone (likes, settings)."""

TRANSIENT_REASONS = frozenset(
    {Reason.UNREACHABLE, Reason.DOWNLOAD_FAILED, Reason.SHA256_MISMATCH, Reason.NOT_FOUND}
    | {Reason.GATED, Reason.PRIVATE, Reason.DISABLED, Reason.HEADER_NOT_PARSED}
)
"""Verdicts that do not follow from the bytes of a revision: never stored, tried again next run."""

STATUS_LISTED, STATUS_REFUSED, STATUS_DELETED = "listed", "refused", "deleted"


def frame_digest(frame: pl.DataFrame, *, ignoring: Sequence[str] = VOLATILE_COLUMNS) -> str:
    """Return a digest that stays while nothing changed on the hub; a data version for Dagster.

    Rows are ordered by ``(hub_id, revision)`` and columns by name first, and the columns in
    ``ignoring`` are left out, so two crawls of an unchanged hub agree, and so do a frame before and
    after later stages wrote their verdicts into ``status`` and ``reason``. ``accepted`` counts: a
    repo that starts or stops being usable is a change.

    Args:
        frame: A stage table.
        ignoring: Columns that do not count; those that the frame lacks are skipped.
    """
    kept = sorted(set(frame.columns) - set(ignoring))
    order = [name for name in ("hub_id", "revision", "repo_id") if name in kept]
    ordered = frame.select(kept).sort(order) if order else frame.select(kept)
    return digest_of_frame(ordered)


def accept(row: Mapping[str, Any], *, reused: bool = False, **payload: Any) -> dict[str, Any]:
    """Return the stage row of an accepted repo revision.

    Args:
        row: Any row with ``hub_id``, ``repo_id`` and ``revision``.
        reused: Whether the verdict was stored by an earlier run.
        payload: The stage's own columns.
    """
    return {**_key(row), "accepted": True, "reason": "", "detail": "", "reused": reused} | payload


def refuse(
    row: Mapping[str, Any],
    reason: Reason | str,
    detail: str,
    *,
    reused: bool = False,
    **payload: Any,
) -> dict[str, Any]:
    """Return the stage row of a refused repo revision; payload columns not given become null."""
    verdict = {"accepted": False, "reason": str(reason), "detail": detail, "reused": reused}
    return {**_key(row), **verdict} | payload


def build_frame(rows: Iterable[Mapping[str, Any]], payload: Schema) -> pl.DataFrame:
    """Make a stage table: KEY_SCHEMA, then ``payload``; missing payload values become null.

    Rows are ordered by ``hub_id``, so equal content is an equal frame.

    Raises:
        StorageError: If a row breaks the rules of :func:`check_frame`.
    """
    schema = {**KEY_SCHEMA, **payload}
    ordered = sorted(rows, key=lambda row: (row["hub_id"], row["revision"]))
    columns = {name: [row.get(name) for row in ordered] for name in schema}
    return check_frame(pl.DataFrame(columns, schema=schema))


def check_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a stage table that keeps the rules of all stage tables.

    Raises:
        StorageError: If a key column is missing, of another type or null, if an accepted row has a
            reason or a refused one has none, or if a (hub_id, revision) comes twice.
    """
    for name, dtype in KEY_SCHEMA.items():
        if frame.schema.get(name) != dtype:
            raise StorageError(
                f"A stage table needs column {name} of type {dtype}; "
                f"it has {frame.schema.get(name)}."
            )
        if frame[name].null_count():
            raise StorageError(f"Column {name} of a stage table must not hold nulls.")
    if frame.filter(pl.col("accepted") != (pl.col("reason") == "")).height:
        raise StorageError("A stage row has a reason exactly when it is not accepted.")
    if frame.select("hub_id", "revision").is_duplicated().any():
        raise StorageError("A stage table has one row per hub_id and revision; one comes twice.")
    return frame


def accepted_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the accepted rows of a stage table as dictionaries, in table order."""
    return frame.filter("accepted").to_dicts()


def parse_reason(code: str) -> Reason:
    """Return the Reason of a stored code.

    Raises:
        RefusedError: If no such reason exists.
    """
    try:
        return Reason(code)
    except ValueError as error:
        raise RefusedError(f"There is no reason code {code!r}; see ws_pipeline.errors.") from error


def count_reasons(frame: pl.DataFrame) -> dict[str, int]:
    """Return how many rows were refused for each reason, the most frequent first."""
    counts = frame.filter(~pl.col("accepted")).group_by("reason").len()
    ordered = counts.sort(["len", "reason"], descending=[True, False])
    return dict(zip(ordered["reason"].to_list(), ordered["len"].to_list(), strict=True))


def _key(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("hub_id", "repo_id", "revision")}
