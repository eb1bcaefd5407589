from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from ws_pipeline.errors import Reason, RefusedError, StorageError
from ws_pipeline.hub.repo import (
    KEY_SCHEMA,
    VOLATILE_COLUMNS,
    accept,
    accepted_rows,
    build_frame,
    check_frame,
    count_reasons,
    frame_digest,
    parse_reason,
    refuse,
)

PAYLOAD = {"num_params": pl.Int64(), "status": pl.String(), "crawled_at": pl.Datetime("us", "UTC")}


def key(number: int) -> dict[str, str]:
    return {"hub_id": f"id{number}", "repo_id": f"a/{number}", "revision": "a" * 40}


def test_a_stage_table_starts_with_the_key_columns_and_is_ordered() -> None:
    rows = [refuse(key(2), Reason.GATED, "Ask."), accept(key(1), num_params=5, reused=True)]
    frame = build_frame(rows, PAYLOAD)
    assert frame.columns == [*KEY_SCHEMA, *PAYLOAD]
    assert frame["hub_id"].to_list() == ["id1", "id2"]
    assert frame["num_params"].to_list() == [5, None]
    assert frame["reused"].to_list() == [True, False]
    assert [row["repo_id"] for row in accepted_rows(frame)] == ["a/1"]


def test_an_empty_stage_table_has_its_types() -> None:
    assert build_frame([], PAYLOAD).schema == {**KEY_SCHEMA, **PAYLOAD}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reason": "gated"}, "has a reason exactly when it is not accepted"),
        ({"accepted": False}, "has a reason exactly when it is not accepted"),
        ({"repo_id": None}, "Column repo_id of a stage table must not hold nulls"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StorageError, match=message):
        build_frame([accept(key(1)) | change], PAYLOAD)


def test_a_revision_that_comes_twice_is_refused() -> None:
    with pytest.raises(StorageError, match="one row per hub_id and revision; one comes twice"):
        build_frame([accept(key(1)), accept(key(1))], PAYLOAD)


def test_a_table_without_a_key_column_is_refused() -> None:
    with pytest.raises(StorageError, match="needs column hub_id of type String; it has None"):
        check_frame(pl.DataFrame({"a": [1]}))


def test_reasons_are_counted() -> None:
    rows = [refuse(key(n), Reason.GATED, "") for n in range(3)]
    rows += [refuse(key(4), "adapter", ""), accept(key(5))]
    assert count_reasons(build_frame(rows, PAYLOAD)) == {"gated": 3, "adapter": 1}


def test_a_reason_code_is_known_or_refused() -> None:
    assert parse_reason("gated") is Reason.GATED
    with pytest.raises(RefusedError, match="There is no reason code 'bad'"):
        parse_reason("bad")


FRAME = build_frame(
    [
        accept(key(n), num_params=n, status="listed", crawled_at=datetime(2026, 1, 1, tzinfo=UTC))
        for n in range(3)
    ],
    PAYLOAD,
)


@pytest.mark.parametrize(
    "same",
    [
        FRAME.reverse(),
        FRAME.select(reversed(FRAME.columns)),
        FRAME.with_columns(status=pl.lit("refused"), reason=pl.lit("nan"), detail=pl.lit("x")),
        FRAME.with_columns(reused=True, crawled_at=datetime(2027, 1, 1, tzinfo=UTC)),
        FRAME.with_columns(attempt=pl.lit(7), last_modified=pl.lit("any")),
    ],
)
def test_the_digest_stays_when_nothing_changed_on_the_hub(same: pl.DataFrame) -> None:
    assert frame_digest(same) == frame_digest(FRAME)


@pytest.mark.parametrize(
    "other",
    [
        FRAME.head(2),
        FRAME.with_columns(revision=pl.lit("b" * 40)),
        FRAME.with_columns(num_params=1),
        FRAME.with_columns(accepted=False),
        FRAME.with_columns(repo_id=pl.lit("renamed/x")),
    ],
)
def test_the_digest_moves_when_something_did(other: pl.DataFrame) -> None:
    assert frame_digest(other) != frame_digest(FRAME)


def test_what_is_ignored_is_a_choice() -> None:
    other = FRAME.with_columns(num_params=1)
    ignoring = (*VOLATILE_COLUMNS, "num_params")
    assert frame_digest(other, ignoring=ignoring) == frame_digest(FRAME, ignoring=ignoring)
