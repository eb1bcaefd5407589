import polars as pl
import pytest

from ws_pipeline.defs.checks import (
    find_bad_vectors,
    find_bad_verdicts,
    find_disagreements,
    find_unaccounted,
)


def rows(*reasons: str, first: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "hub_id": [f"id{first + i}" for i in range(len(reasons))],
            "revision": ["r"] * len(reasons),
            "accepted": [reason == "" for reason in reasons],
            "reason": list(reasons),
        }
    )


def test_a_sound_table_has_no_problem() -> None:
    assert find_bad_verdicts(rows("", "gated", "pickle_only")).is_empty()
    assert find_bad_verdicts(rows("", "too_small"), rows("", "")).is_empty()


@pytest.mark.parametrize(
    ("table", "upstream", "problem"),
    [
        (pl.concat([rows(""), rows("")]), None, "comes twice"),
        (rows("gated").with_columns(accepted=True), None, "reason does not go with accepted"),
        (rows("because"), None, "unknown reason"),
        (rows(""), rows("", ""), "no row"),
        (rows("", ""), rows("", "gated"), "was not accepted before"),
    ],
)
def test_each_broken_rule_is_named(
    table: pl.DataFrame, upstream: pl.DataFrame | None, problem: str
) -> None:
    assert problem in find_bad_verdicts(table, upstream)["problem"].to_list()


def test_verdicts_and_corpus_name_the_same_models() -> None:
    verdicts = rows("", "near_duplicate", "")
    models = verdicts.filter("accepted")
    assert find_disagreements(verdicts, models).is_empty()
    assert find_disagreements(verdicts, models.head(1))["problem"].to_list() == ["missing"]
    assert find_disagreements(verdicts, verdicts)["problem"].to_list() == ["unjudged"]
    assert find_disagreements(rows("because"), models.clear())["problem"].to_list() == [
        "unknown reason"
    ]


def plan(tokenised: int, carried: int, excluded: int, layers: list[int]) -> pl.DataFrame:
    return rows("").with_columns(
        num_bytes=pl.lit(100),
        num_tokenised_bytes=pl.lit(tokenised),
        num_carried_bytes=pl.lit(carried),
        num_excluded_bytes=pl.lit(excluded),
        layers=pl.Series([[{"num_bytes": n} for n in layers]]),
    )


def test_bytes_have_to_add_up() -> None:
    assert find_unaccounted(plan(90, 6, 4, [90, 10])).is_empty()
    assert find_unaccounted(plan(90, 6, 3, [90, 10])).height == 1
    assert find_unaccounted(plan(90, 6, 4, [90, 11])).height == 1


def corpus(**columns: list[str]) -> pl.DataFrame:
    base = {
        "hub_id": ["a", "b", "c"],
        "revision": ["r"] * 3,
        "lineage_root": ["x", "x", "y"],
        "shard_sha256": ["1", "2", "3"],
        "split": ["train", "train", "test"],
    }
    return pl.DataFrame({**base, **columns})


def vectors(values: list[list[float]]) -> pl.DataFrame:
    return pl.concat(
        corpus()
        .select("hub_id", "revision", representation=pl.lit(name))
        .with_columns(embedding=pl.Series(values, dtype=pl.List(pl.Float32)))
        for name in ("backbone", "untrained")
    )


def test_vectors_are_there_finite_and_not_all_zero() -> None:
    good = vectors([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]])
    assert find_bad_vectors(good, corpus()).is_empty()
    assert find_bad_vectors(vectors([[1.0], [float("nan")], [1.0]]), corpus()).height == 2
    assert find_bad_vectors(vectors([[1.0], [0.0], [1.0]]), corpus()).height == 2
    missing = good.filter(~((pl.col("hub_id") == "b") & (pl.col("representation") == "untrained")))
    (row,) = find_bad_vectors(missing, corpus()).to_dicts()
    assert (row["representation"], row["hub_id"], row["problem"]) == ("untrained", "b", "no vector")
