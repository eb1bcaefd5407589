import polars as pl

from ws_pipeline.defs.assets.hub import REPOS
from ws_pipeline.defs.columns import describe_columns, preview_rows
from ws_pipeline.defs.io_managers import table_key
from ws_pipeline.defs.step import (
    count_retryable,
    count_verdicts,
    count_work,
    markdown_table,
    reasons_table,
    table_version,
)


def table(*rows: tuple[str, str, bool]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "hub_id": name,
                "repo_id": f"lab/{name}",
                "revision": "r",
                "accepted": reason == "",
                "reason": reason,
                "reused": reused,
            }
            for name, reason, reused in rows
        ]
    )


def test_the_version_of_a_table_follows_its_content_only() -> None:
    first = table(("a", "", False), ("b", "", False))
    again = table(("b", "", True), ("a", "", True))
    assert table_version(first, "bert") == table_version(again, "bert")
    assert table_version(first, "bert") != table_version(table(("a", "", False)), "bert")


def test_two_empty_families_have_two_versions() -> None:
    empty = table(("a", "", False)).clear()
    assert table_version(empty, "bert") != table_version(empty, "vit")


def test_repos_that_are_asked_again_every_time_are_not_counted_as_work() -> None:
    frame = table(("a", "", False), ("b", "", True), ("c", "gated", False), ("d", "", False))
    assert count_work(frame) == {"num_processed": 2, "num_reused": 1, "num_retried": 1}
    assert count_work(frame.drop("reused")) == {}


def test_only_a_failure_that_may_pass_makes_a_partition_stale() -> None:
    assert count_retryable(table(("a", "gated", False), ("b", "pickle_only", False))) == 0
    assert count_retryable(table(("a", "unreachable", False), ("b", "download_failed", False))) == 2
    assert count_retryable(table(("a", "no_space", False), ("b", "missing_input", False))) == 2


def test_reasons_are_counted_with_an_example() -> None:
    frame = table(("a", "gated", False), ("b", "gated", False), ("c", "too_small", False))
    lines = reasons_table(frame).splitlines()
    assert lines[0] == "| reason | repos | for example |"
    assert lines[2] == "| gated | 2 | lab/a |"
    counts = count_verdicts(frame)
    assert (counts["num_accepted"], counts["num_refused"]) == (0, 3)
    assert (counts["left_out_gated"], counts["left_out_too_small"]) == (2, 1)  # Dagster plots them
    assert reasons_table(frame.clear()) == "nothing was refused"


def test_a_value_cannot_break_out_of_its_cell() -> None:
    shown = markdown_table(pl.DataFrame({"name": ["a|b\nc"]}))
    assert shown.splitlines()[-1] == "| a/b c |"


def test_a_table_is_named_by_its_asset_and_partition() -> None:
    assert table_key(REPOS, "bert") == "hub/repos/bert"
    assert table_key(REPOS) == "hub/repos"


def test_columns_are_described_and_long_types_cut() -> None:
    nested = pl.Struct({f"field_{i}": pl.String() for i in range(40)})
    schema = describe_columns({"name": pl.String(), "files": pl.List(nested)})
    assert [column.name for column in schema.columns] == ["name", "files"]
    assert all(len(column.type) <= 40 for column in schema.columns)
    assert (
        schema.columns[1].description
        == "path, size and sha256 of every file, as the hub states them"
    )


def test_the_first_rows_are_shown_without_what_is_nested_or_long() -> None:
    frame = pl.DataFrame(
        {"repo_id": [f"lab/{i}" for i in range(9)], "card": "x" * 99, "tags": [[]] * 9}
    )
    lines = preview_rows(frame.lazy()).splitlines()
    assert lines[0] == "| repo_id | card |"
    assert lines[2] == f"| lab/0 | {'x' * 57}... |"
    assert len(lines) == 2 + 5
    assert preview_rows(frame.clear().lazy()) == "no rows"


def test_what_a_stranger_wrote_is_shown_as_code() -> None:
    hostile = "![a](http://evil/x.png) `<img src=x>` | b\nc"
    values = {"repo_id": "lab/a", "card": hostile, "licence": "apache-2.0", "url": "http://evil"}
    row = preview_rows(pl.DataFrame(values).lazy()).splitlines()[-1]
    quoted = "`![a](http://evil/x.png) '<img src=x>' / b c`"
    assert row == f"| lab/a | {quoted} | apache-2.0 | `http://evil` |"
