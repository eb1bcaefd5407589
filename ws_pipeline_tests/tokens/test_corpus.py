"""The corpus: splits follow lineage, do not move when repos are added, and hold no copies apart."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.repo import REPO_SCHEMA
from ws_pipeline.tokens.corpus import (
    CORPUS_SCHEMA,
    SplitPolicy,
    assign_split,
    audit_corpus,
    build_corpus,
)
from ws_pipeline.tokens.shards import SHARDS_SCHEMA


def make_repo(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "hub_id": f"id{number}", "repo_id": f"zoo/m{number}", "revision": "r", "accepted": True,
        "reason": "", "detail": "", "reused": False, "family": f"f{number % 3}", "licence": "mit",
        "created_at": datetime(2026, 1, 1, minute=number % 60, hour=number // 60, tzinfo=UTC),
        "base_models": [], "base_model_relation": "", "files": [], "card": "{}", "aliases": [],
    }  # fmt: skip
    return row | changes


def make_shard(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "hub_id": f"id{number}", "repo_id": f"zoo/m{number}", "revision": "r", "accepted": True,
        "reason": "", "detail": "", "reused": False, "manifest": f"key{number}",
        "shard_sha256": f"sha{number}", "num_values": 10, "num_params": 10, "num_bytes": 40,
        "layers": [],
    }  # fmt: skip
    return row | changes


def build(
    shards: list[dict[str, Any]], repos: list[dict[str, Any]], policy: SplitPolicy | None = None
) -> pl.DataFrame:
    return build_corpus(
        pl.DataFrame(shards, schema=SHARDS_SCHEMA),
        pl.DataFrame(repos, schema=REPO_SCHEMA),
        policy or SplitPolicy(),
    )


def test_every_accepted_model_has_one_row_of_the_contracts_columns() -> None:
    shards = [make_shard(1), make_shard(1), make_shard(0), make_shard(2, accepted=False)]
    corpus = build(shards, [make_repo(number) for number in range(3)])
    assert corpus.schema == pl.Schema(CORPUS_SCHEMA)
    assert corpus["hub_id"].to_list() == ["id0", "id1"]
    assert corpus["family"].to_list() == ["f0", "f1"]
    assert corpus["weight"].to_list() == [1.0, 1.0]


def test_shares_come_out_as_stated() -> None:
    numbers = range(600)
    corpus = build([make_shard(n) for n in numbers], [make_repo(n) for n in numbers])
    shares = dict(corpus["split"].value_counts(normalize=True).iter_rows())
    assert shares["test"] == pytest.approx(0.20, abs=0.05)
    assert shares["val"] == pytest.approx(0.15, abs=0.05)


def test_adding_repos_moves_none() -> None:
    def split_of(count: int) -> dict[str, str]:
        corpus = build([make_shard(n) for n in range(count)], [make_repo(n) for n in range(count)])
        return dict(corpus.select("hub_id", "split").iter_rows())

    before, after = split_of(50), split_of(300)
    assert before.items() <= after.items()


@given(st.integers(0, 1000))
def test_a_base_model_and_its_descendants_land_together(seed: int) -> None:
    repos = [
        make_repo(0),
        make_repo(1, base_models=["zoo/m0"]),
        make_repo(2, base_models=["zoo/m1"]),
    ]
    # The middle of the lineage was refused somewhere on the way; it still links the others.
    repos[1]["accepted"] = False
    corpus = build([make_shard(0), make_shard(2)], repos, SplitPolicy(seed=seed))
    assert corpus["split"].n_unique() == corpus["lineage_root"].n_unique() == 1


@given(st.integers(0, 1000))
def test_identical_shards_land_together_through_any_chain(seed: int) -> None:
    shards = [make_shard(n, shard_sha256=f"sha{n // 2}") for n in range(6)]
    repos = [make_repo(n) for n in range(6)]
    repos[3]["base_models"] = ["zoo/m4"]  # joins the pairs (2, 3) and (4, 5)
    corpus = build(shards, repos, SplitPolicy(seed=seed))
    roots = corpus["lineage_root"].to_list()
    assert roots[0] == roots[1]
    assert len(set(roots[2:])) == 1
    audit = audit_corpus(corpus)
    assert (audit.num_shared_shards, audit.num_shared_lineages) == (0, 0)


def test_the_audit_counts_and_finds_leaks() -> None:
    numbers = range(40)
    corpus = build([make_shard(n) for n in numbers], [make_repo(n) for n in numbers])
    audit = audit_corpus(corpus)
    assert audit.counts["num_models"].sum() == 40
    assert audit.counts["num_params"].sum() == 400
    assert audit.counts.columns[:3] == ["split", "family", "licence"]
    leaky = corpus.with_columns(shard_sha256=pl.lit("same"), lineage_root=pl.lit("same"))
    leaks = audit_corpus(leaky)
    assert (leaks.num_shared_shards, leaks.num_shared_lineages) == (1, 1)


def test_families_can_be_drawn_alike() -> None:
    repos = [make_repo(n, family="big" if n < 9 else "small") for n in range(10)]
    corpus = build([make_shard(n) for n in range(10)], repos, SplitPolicy(family_exponent=0.0))
    sums = corpus.group_by("family").agg(pl.col("weight").sum())
    assert sums["weight"].to_list() == pytest.approx([1.0, 1.0])


def test_a_shard_without_a_repo_row_is_its_own_lineage() -> None:
    corpus = build([make_shard(9)], [make_repo(0)])
    assert corpus["lineage_root"].to_list() == ["id9"]


def test_seeds_split_differently() -> None:
    splits = {
        tuple(assign_split(f"id{n}", SplitPolicy(seed=seed)) for n in range(50)) for seed in (0, 1)
    }
    assert len(splits) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_share": -0.1}, r"SplitPolicy\.val_share must be within \[0, 0\.9\], it is -0\.1"),
        ({"val_share": 0.5, "test_share": 0.5}, "must leave a tenth to train"),
        ({"family_exponent": 2.0}, r"SplitPolicy\.family_exponent must be within \[0, 1\]"),
    ],
)
def test_a_policy_out_of_bounds_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitPolicy(**change)  # type: ignore[arg-type]
