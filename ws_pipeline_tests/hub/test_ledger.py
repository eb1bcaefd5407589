from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from ws_pipeline.errors import ConfigError, Reason, RefusedError, StorageError
from ws_pipeline.hub.ledger import REFUSAL_SCHEMA, Ledger
from ws_pipeline.hub.repo import KEY_SCHEMA, REPO_SCHEMA, accept, build_frame, frame_digest, refuse

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PAYLOAD = {name: dtype for name, dtype in REPO_SCHEMA.items() if name not in KEY_SCHEMA}


def key(number: int, revision: str = "a") -> dict[str, str]:
    return {"hub_id": f"id{number}", "repo_id": f"zoo/{number}", "revision": revision * 40}


def repos(*rows: dict[str, Any]) -> pl.DataFrame:
    common = {"family": "mlp", "status": "listed", "attempt": 1, "crawled_at": NOW}
    return build_frame([row | common | {"status": row.get("status", "listed")} for row in rows],
                       PAYLOAD)  # fmt: skip


def verdicts(*rows: dict[str, Any]) -> pl.DataFrame:
    return build_frame(rows, {})


def status_of(ledger: Ledger) -> dict[str, tuple[str, str]]:
    rows = ledger.read("mlp").to_dicts()
    return {row["hub_id"]: (row["status"], row["reason"]) for row in rows}


def test_an_unknown_family_is_empty(ledger: Ledger) -> None:
    assert ledger.read("mlp").schema == REPO_SCHEMA
    assert ledger.read("mlp").is_empty()
    assert ledger.families() == []


def test_the_status_is_the_furthest_stage_that_was_passed(ledger: Ledger) -> None:
    ledger.write_repos("mlp", repos(*(accept(key(n)) for n in range(6))))
    ledger.record_verdicts("mlp", "headers", verdicts(*(accept(key(n)) for n in range(1, 6))))
    ledger.record_verdicts("mlp", "selection", verdicts(*(accept(key(n)) for n in range(2, 6))))
    ledger.record_verdicts("mlp", "files", verdicts(*(accept(key(n)) for n in range(3, 6))))
    ledger.record_verdicts("mlp", "layers", verdicts(accept(key(4)), accept(key(5))))
    ledger.record_verdicts("mlp", "shards", verdicts(accept(key(4)), accept(key(5))))
    ledger.record_verdicts("mlp", "corpus", verdicts(accept(key(5))))
    statuses = {hub_id: status for hub_id, (status, _) in status_of(ledger).items()}
    assert statuses == {
        "id0": "listed",
        "id1": "triaged",
        "id2": "selected",
        "id3": "stored",
        "id4": "tokenised",
        "id5": "in_corpus",
    }


def test_the_first_refusal_counts_even_if_an_old_later_verdict_is_there(ledger: Ledger) -> None:
    ledger.write_repos("mlp", repos(accept(key(1))))
    ledger.record_verdicts("mlp", "headers", verdicts(accept(key(1))))
    ledger.record_verdicts("mlp", "selection", verdicts(refuse(key(1), Reason.QUANTIZED, "q")))
    ledger.record_verdicts("mlp", "files", verdicts(accept(key(1))))
    assert status_of(ledger) == {"id1": ("refused", "quantized")}


def test_a_verdict_on_another_revision_does_not_count(ledger: Ledger) -> None:
    ledger.write_repos("mlp", repos(accept(key(1, "b"))))
    ledger.record_verdicts("mlp", "headers", verdicts(refuse(key(1, "a"), Reason.ADAPTER, "x")))
    assert status_of(ledger) == {"id1": ("listed", "")}


def test_what_the_crawl_refused_stays_refused(ledger: Ledger) -> None:
    row = refuse(key(1), Reason.DISABLED, "x") | {"status": "refused"}
    tombstone = refuse(key(2), Reason.NOT_FOUND, "x") | {"status": "deleted"}
    ledger.write_repos("mlp", repos(row, tombstone))
    ledger.record_verdicts("mlp", "headers", verdicts(accept(key(1)), accept(key(2))))
    assert status_of(ledger) == {"id1": ("refused", "disabled"), "id2": ("deleted", "not_found")}


def test_later_verdicts_do_not_move_the_digest(ledger: Ledger) -> None:
    crawled = repos(accept(key(1)), accept(key(2)))
    ledger.write_repos("mlp", crawled)
    ledger.record_verdicts("mlp", "headers", verdicts(refuse(key(1), Reason.ADAPTER, "x")))
    assert ledger.read("mlp")["status"].to_list() == ["refused", "listed"]
    assert frame_digest(ledger.read("mlp")) == frame_digest(crawled)
    assert ledger.read_repos("mlp").equals(crawled)


def test_attempts_count_while_a_reason_may_pass(ledger: Ledger) -> None:
    ledger.write_repos("mlp", repos(accept(key(1)), accept(key(2))))
    for expected in (1, 2, 3):
        rows = [refuse(key(1), Reason.UNREACHABLE, "x"), refuse(key(2), Reason.ADAPTER, "x")]
        ledger.record_verdicts("mlp", "headers", verdicts(*rows))
        assert ledger.read("mlp")["attempt"].to_list() == [expected, 1]


def test_families_are_listed(ledger: Ledger) -> None:
    for family in ("vit", "timm+vit"):
        ledger.write_repos(family, repos())
    assert ledger.families() == ["timm+vit", "vit"]


def test_other_columns_or_names_are_refused(ledger: Ledger) -> None:
    with pytest.raises(RefusedError, match="needs the columns of REPO_SCHEMA"):
        ledger.write_repos("mlp", verdicts())
    with pytest.raises(RefusedError, match=r"A stage is one of headers, .*; got 'x'"):
        ledger.record_verdicts("mlp", "x", verdicts())
    with pytest.raises(ConfigError, match="A family's name is"):
        ledger.write_repos("../mlp", repos())
    with pytest.raises(StorageError, match="needs column hub_id"):
        ledger.record_verdicts("mlp", "headers", pl.DataFrame({"a": [1]}))


def test_refusals_are_the_rows_with_a_reason_and_name_the_stage(ledger: Ledger) -> None:
    crawled = [accept(key(n)) for n in range(8)]
    crawled[5] = refuse(key(5), Reason.GATED, "g", status="listed")
    crawled[6] = refuse(key(6), Reason.NOT_FOUND, "n", status="deleted")
    crawled[7] = refuse(key(7), Reason.MALFORMED_ROW, "m", status="refused")
    ledger.write_repos("mlp", repos(*crawled))
    headers = [accept(key(n)) for n in range(1, 5)]
    headers[1] = refuse(key(2), Reason.PICKLE_ONLY, "p")
    ledger.record_verdicts("mlp", "headers", verdicts(*headers))
    stale = accept(key(2)), refuse(key(3, "b"), Reason.ADAPTER, "x")
    ledger.record_verdicts(
        "mlp", "selection", verdicts(*stale, refuse(key(4), Reason.QUANTIZED, "q"))
    )
    ledger.record_verdicts("mlp", "files", verdicts(refuse(key(4), Reason.NO_SPACE, "stale")))
    refusals = ledger.read_refusals("mlp")
    assert dict(refusals.select("repo_id", "stage").iter_rows()) == {
        key(2)["repo_id"]: "headers",
        key(4)["repo_id"]: "selection",
        key(5)["repo_id"]: "repos",
        key(6)["repo_id"]: "repos",
        key(7)["repo_id"]: "repos",
    }
    columns = ["repo_id", "status", "reason", "detail"]
    read = ledger.read("mlp").filter(pl.col("reason") != "").select(columns).sort("repo_id")
    assert refusals.select(columns).equals(read)
    assert refusals["family"].unique().to_list() == ["mlp"]
    assert ledger.read_refusals("cnn").schema == REFUSAL_SCHEMA
