"""The corpus: splits follow lineage, do not move when repos are added, and hold no copies apart."""

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.lineage import EDGE_SCHEMA
from ws_pipeline.hub.repo import KEY_SCHEMA
from ws_pipeline.tokens.audit import count_corpus
from ws_pipeline.tokens.corpus import CORPUS_SCHEMA, VERDICT_PAYLOAD, SplitPolicy, assign_split
from ws_pipeline.tokens.corpus_rules import CorpusPolicy
from ws_pipeline_tests.tokens.corpus_tables import (
    build,
    build_models,
    make_files,
    make_layers,
    make_repo,
    make_shard,
    make_weights,
    reasons,
)


def test_every_tokenised_model_has_a_verdict_and_every_accepted_one_a_row() -> None:
    shards = [make_shard(1), make_shard(1), make_shard(0), make_shard(2, accepted=False)]
    corpus = build(shards, [make_repo(number) for number in range(3)])
    assert corpus.models.schema == pl.Schema(CORPUS_SCHEMA)
    assert corpus.models["hub_id"].to_list() == ["id0", "id1"]
    assert corpus.models["family"].to_list() == ["f0", "f1"]
    assert corpus.verdicts.schema == pl.Schema({**KEY_SCHEMA, **VERDICT_PAYLOAD})
    assert reasons(corpus) == {"id0": "", "id1": ""}
    assert corpus.edges.schema == pl.Schema(EDGE_SCHEMA)


def test_no_shards_are_an_empty_corpus() -> None:
    corpus = build([], [make_repo(1)])
    assert corpus.models.is_empty()
    assert corpus.verdicts.is_empty()


def test_shares_come_out_as_stated() -> None:
    numbers = range(600)
    corpus = build([make_shard(n) for n in numbers], [make_repo(n) for n in numbers]).models
    shares = dict(corpus["split"].value_counts(normalize=True).iter_rows())
    assert shares["test"] == pytest.approx(0.20, abs=0.05)
    assert shares["val"] == pytest.approx(0.15, abs=0.05)


def test_adding_repos_moves_none() -> None:
    def split_of(count: int) -> dict[str, str]:
        numbers = range(count)
        corpus = build([make_shard(n) for n in numbers], [make_repo(n) for n in numbers])
        return dict(corpus.models.select("hub_id", "split").iter_rows())

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
    corpus = build([make_shard(0), make_shard(2)], repos, splits=SplitPolicy(seed=seed)).models
    assert len(corpus) == 2
    assert corpus["split"].n_unique() == corpus["lineage_root"].n_unique() == 1


def test_a_copy_ties_its_relatives_to_those_of_the_original() -> None:
    shards = [make_shard(n, shard_sha256=f"sha{n // 2}") for n in range(6)]
    repos = [make_repo(n) for n in range(6)]
    repos[3]["base_models"] = ["zoo/m4"]  # joins the pairs (2, 3) and (4, 5)
    corpus = build(shards, repos)
    roots = dict(corpus.models.select("hub_id", "lineage_root").iter_rows())
    assert roots == {"id0": "id0", "id2": "id2", "id4": "id2"}
    assert [hub_id for hub_id, reason in reasons(corpus).items() if reason] == ["id1", "id3", "id5"]


def test_a_younger_copy_does_not_move_the_older_lineage() -> None:
    shards = [make_shard(n) for n in (4, 5)]
    repos = [make_repo(n) for n in (4, 5)]
    before = build(shards, repos).models.select("hub_id", "lineage_root", "split").rows()
    # Its id sorts first, and so would its lineage's name.
    copy = make_shard(0, shard_sha256="sha5"), make_repo(0, created_at=None)
    after = build([*shards, copy[0]], [*repos, copy[1]])
    assert after.models.select("hub_id", "lineage_root", "split").rows() == before
    assert reasons(after)["id0"] == "duplicate_tensors"


def test_files_of_another_family_are_copies_too() -> None:
    repos = [make_repo(n, files=make_files("f" * 64)) for n in (1, 2)]
    corpus = build([make_shard(1), make_shard(2)], repos)
    assert reasons(corpus) == {"id1": "", "id2": "duplicate_files"}
    row = corpus.verdicts.filter(pl.col("hub_id") == "id2").to_dicts()[0]
    assert (row["twin"], row["family"]) == ("id1", "f2")
    assert row["detail"] == "Its weight files are byte for byte those of zoo/m1."


def test_a_shared_layer_joins_lineages_and_is_a_proven_edge() -> None:
    first, second, stranger = make_weights(1), make_weights(2), make_weights(3)
    second["layers.1.weight"] = first["layers.2.weight"]
    corpus = build_models([first, second, stranger])
    assert set(reasons(corpus).values()) == {""}
    roots = dict(corpus.models.select("hub_id", "lineage_root").iter_rows())
    assert roots == {"id0": "id0", "id1": "id0", "id2": "id2"}
    (edge,) = corpus.edges.to_dicts()
    assert (edge["child"], edge["parent"], edge["relation"]) == ("id1", "id0", "shared")
    assert (edge["evidence"], edge["proven"]) == ("layers", True)


def test_a_full_lineage_keeps_its_oldest_members() -> None:
    repos = [make_repo(0), *(make_repo(n, base_models=["zoo/m0"]) for n in range(1, 5))]
    repos += [make_repo(5)]
    shards = [make_shard(n) for n in reversed(range(6))]
    corpus = build(shards, repos, policy=CorpusPolicy(max_lineage_members=2))
    full = "lineage_full"
    expected = {"id0": "", "id1": "", "id2": full, "id3": full, "id4": full, "id5": ""}
    assert reasons(corpus) == expected
    older = build(shards[2:], repos, policy=CorpusPolicy(max_lineage_members=2))
    assert reasons(older) == {name: expected[name] for name in ("id0", "id1", "id2", "id3")}
    detail = corpus.verdicts.filter(pl.col("reason") == full)["detail"][0]
    assert detail == "Its lineage has 2 older members in the corpus, as many as it may have."


@st.composite
def populations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Models that claim, copy and share at random: number, bases, file, shard, seed of weights."""
    count = draw(st.integers(1, 8))
    small = st.integers(0, count - 1)
    return [
        {
            "number": n,
            "bases": draw(st.lists(small, max_size=2)),
            "file": draw(st.sampled_from(["", *(f"{i:064x}" for i in range(1, 4))])),
            "shard": draw(small),
            "seed": draw(small),
        }
        for n in range(count)
    ]


def _build_population(models: list[dict[str, Any]], seed: int = 0, extra: int = 0) -> Any:
    """Build a corpus of a population in any order, with models that have nothing to do with it."""
    strangers = range(100, 100 + extra)
    shards = [make_shard(m["number"], shard_sha256=f"sha{m['shard']}") for m in models]
    shards += [make_shard(n) for n in strangers]
    repos = [
        make_repo(m["number"], base_models=[f"zoo/m{base}" for base in m["bases"]],
                  files=make_files(m["file"]))
        for m in models
    ]  # fmt: skip
    repos += [make_repo(n) for n in strangers]
    layers = [make_layers(m["number"], make_weights(m["seed"], num_layers=1)) for m in models]
    layers += [make_layers(n, make_weights(n, num_layers=1)) for n in strangers]
    order = random.Random(seed)
    for rows in (shards, repos, layers):
        order.shuffle(rows)
    return build(shards, repos, layers)


@given(populations(), st.integers(1, 1000))
@settings(max_examples=40, deadline=None)
def test_neither_the_order_of_rows_nor_strangers_change_a_verdict_root_or_split(
    models: list[dict[str, Any]], seed: int
) -> None:
    known = pl.col("hub_id").is_in([f"id{model['number']}" for model in models])
    first = _build_population(models)
    for other in (_build_population(models, seed), _build_population(models, seed, extra=4)):
        assert other.models.filter(known).equals(first.models)
        assert other.verdicts.filter(known).equals(first.verdicts)
        assert other.edges.equals(first.edges)


def test_counts_are_by_split_family_and_licence() -> None:
    numbers = range(40)
    corpus = build([make_shard(n) for n in numbers], [make_repo(n) for n in numbers])
    counts = count_corpus(corpus.models)
    assert counts["num_models"].sum() == 40
    assert counts["num_params"].sum() == 400
    assert counts.columns[:3] == ["split", "family", "licence"]


def test_a_shard_without_a_repo_row_is_its_own_lineage() -> None:
    corpus = build([make_shard(9)], [make_repo(0)])
    assert corpus.models["lineage_root"].to_list() == ["id9"]


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
    ],
)
def test_a_policy_out_of_bounds_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitPolicy(**change)  # type: ignore[arg-type]
