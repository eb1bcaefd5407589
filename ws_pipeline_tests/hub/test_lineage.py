import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.hub.lineage import (
    SHARED,
    Edge,
    Evidence,
    lineage_edges,
    lineage_roots,
    weight_digests,
)
from ws_pipeline.hub.repo import KEY_SCHEMA, REPO_SCHEMA, accept, build_frame, refuse

PAYLOAD = {name: dtype for name, dtype in REPO_SCHEMA.items() if name not in KEY_SCHEMA}


def repo(number: int, *bases: str, digest: str = "", **changes: Any) -> dict[str, Any]:
    """Repo ``zoo/<number>``; a higher number is younger."""
    key = {"hub_id": f"id{number}", "repo_id": f"zoo/{number}", "revision": "a" * 40}
    files = [{"path": "m.safetensors", "num_bytes": 1, "sha256": digest, "blob_id": ""}]
    columns = {
        "base_models": list(bases),
        "base_model_relation": "finetune" if bases else "",
        "aliases": [],
        "files": files,
        "created_at": datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number),
    }
    return accept(key, **columns) | changes


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return build_frame(rows, PAYLOAD)


def roots(*rows: dict[str, Any]) -> dict[str, str]:
    table = lineage_roots(frame(*rows))
    return dict(zip(table["hub_id"], table["lineage_root"], strict=True))


def test_a_chain_has_the_root_of_its_oldest_member() -> None:
    assert roots(repo(1), repo(2, "zoo/1"), repo(3, "zoo/2"), repo(4)) == {
        "id1": "id1",
        "id2": "id1",
        "id3": "id1",
        "id4": "id4",
    }


def test_a_tree_is_named_by_its_base_whatever_the_dates() -> None:
    base, child, grandchild = repo(3), repo(1, "zoo/3"), repo(2, "zoo/1")
    assert set(roots(base, child, grandchild).values()) == {"id3"}


def test_cycles_and_claims_of_oneself_are_fine() -> None:
    assert roots(repo(1, "zoo/2"), repo(2, "zoo/1"), repo(3, "zoo/3")) == {
        "id1": "id1",
        "id2": "id1",
        "id3": "id3",
    }


def test_fine_tunes_of_an_unknown_base_are_one_group() -> None:
    assert roots(repo(1, "big/Base"), repo(2, "BIG/base"), repo(3, "big/other")) == {
        "id1": "id1",
        "id2": "id1",
        "id3": "id3",
    }


def test_a_merge_joins_its_parents() -> None:
    assert set(roots(repo(1), repo(2), repo(3, "zoo/1", "zoo/2")).values()) == {"id1"}


def test_a_claim_is_resolved_by_a_former_name() -> None:
    renamed = repo(1, aliases=["zoo/old"])
    assert roots(renamed, repo(2, "Zoo/Old"))["id2"] == "id1"


def test_a_present_name_wins_over_a_former_one() -> None:
    rows = [repo(1, aliases=["zoo/2"]), repo(2), repo(3, "zoo/2")]
    edges = lineage_edges(frame(*rows)).to_dicts()
    assert [(edge["child"], edge["parent"]) for edge in edges] == [("id3", "id2")]


def test_identical_files_are_a_proven_edge_from_the_oldest() -> None:
    edges = lineage_edges(frame(repo(3, digest="f" * 64), repo(1, digest="f" * 64), repo(2)))
    assert edges.to_dicts() == [
        {
            "child": "id3",
            "parent": "id1",
            "parent_name": "zoo/1",
            "relation": "identical",
            "evidence": "files",
            "proven": True,
            "contradiction": "",
        }
    ]


def test_a_claim_is_an_unproven_edge_even_if_the_base_is_unknown() -> None:
    edge = lineage_edges(frame(repo(1, "big/base"))).to_dicts()[0]
    assert (edge["parent"], edge["parent_name"], edge["relation"], edge["proven"]) == (
        "",
        "big/base",
        "finetune",
        False,
    )


def test_refused_repos_and_tombstones_still_tie_their_relatives() -> None:
    key = {"hub_id": "id1", "repo_id": "zoo/1", "revision": "a" * 40}
    refused = repo(1) | refuse(key, "gated", "x")
    assert roots(refused, repo(2, "zoo/1"), repo(3, "zoo/1"))["id3"] == "id1"


def test_a_repo_in_two_families_is_one_model() -> None:
    tombstone = repo(1) | {"accepted": False, "reason": "not_found"}
    table = lineage_roots(pl.concat([frame(tombstone), frame(repo(1)), frame(repo(2, "zoo/1"))]))
    assert table["hub_id"].to_list() == ["id1", "id2"]


def claims(*rows: dict[str, Any]) -> dict[tuple[str, str], str]:
    """{(child, parent): contradiction} of the claims among some repos."""
    edges = lineage_edges(frame(*rows)).filter(pl.col("evidence") == "claim")
    return {(e["child"], e["parent"]): e["contradiction"] for e in edges.to_dicts()}


def test_a_claim_that_can_be_true_is_not_contradicted() -> None:
    assert claims(repo(1), repo(2, "zoo/1"), repo(3, "zoo/2", "big/base")) == {
        ("id2", "id1"): "",
        ("id3", "id2"): "",
        ("id3", ""): "",
    }


def test_a_claim_of_oneself_is_flagged() -> None:
    assert claims(repo(1, "zoo/1")) == {("id1", "id1"): "self"}


def test_every_claim_in_a_circle_is_flagged_and_those_that_lead_into_it_are_not() -> None:
    rows = [repo(1, "zoo/3"), repo(2, "zoo/1"), repo(3, "zoo/2"), repo(4, "zoo/3")]
    assert claims(*rows) == {
        ("id1", "id3"): "circle",
        ("id2", "id1"): "circle",
        ("id3", "id2"): "circle",
        ("id4", "id3"): "",
    }


def test_a_base_that_is_younger_is_flagged_unless_a_date_is_missing() -> None:
    assert claims(repo(1, "zoo/2"), repo(2)) == {("id1", "id2"): "younger_base"}
    assert claims(repo(1, "zoo/2"), repo(2, created_at=None)) == {("id1", "id2"): ""}


@pytest.mark.parametrize("relation", ["finetune", "quantized", "merge"])
def test_a_claim_of_change_is_contradicted_by_equal_bytes(relation: str) -> None:
    child = repo(2, "zoo/1", digest="f" * 64, base_model_relation=relation)
    rows = [repo(1, digest="f" * 64), child]
    assert claims(*rows) == {("id2", "id1"): "copy"}
    edges = lineage_edges(frame(*rows)).to_dicts()
    assert {e["relation"]: e["proven"] for e in edges} == {relation: False, "identical": True}
    assert set(roots(*rows).values()) == {"id1"}


def test_a_name_that_two_repos_had_is_flagged_and_the_present_owner_taken() -> None:
    rows = [repo(1, aliases=["zoo/2"]), repo(2), repo(3, "zoo/2")]
    assert claims(*rows) == {("id3", "id2"): "ambiguous_name"}


def test_a_name_taken_over_from_a_deleted_repo_means_the_live_one() -> None:
    gone = repo(5, repo_id="zoo/1", accepted=False, reason="not_found", status="deleted")
    rows = [repo(1), gone, repo(6, "zoo/1")]
    assert claims(*rows) == {("id6", "id1"): "ambiguous_name"}


def test_of_two_former_owners_of_a_name_the_older_is_taken() -> None:
    rows = [repo(1, aliases=["zoo/old"]), repo(2, aliases=["zoo/old"]), repo(3, "zoo/old")]
    assert claims(*rows) == {("id3", "id1"): "ambiguous_name"}


def test_edges_that_are_known_from_weights_count_like_claims() -> None:
    found = [Edge("id3", "id1", "zoo/1", SHARED, Evidence.LAYERS, proven=True)]
    rows = frame(repo(1), repo(2), repo(3), repo(4, "zoo/3"))
    table = lineage_roots(rows, found)
    assert table["lineage_root"].to_list() == ["id1", "id2", "id1", "id1"]
    assert lineage_edges(rows, found).filter("proven")["relation"].to_list() == ["shared"]


def test_only_safetensors_files_with_a_digest_prove_anything() -> None:
    files = [
        {"path": "b.safetensors", "sha256": "2"},
        {"path": "a.safetensors", "sha256": "1"},
        {"path": "c.safetensors", "sha256": ""},
        {"path": "training_args.bin", "sha256": "3"},
    ]
    assert weight_digests(files) == ["1", "2"]


def test_no_repos_have_no_roots() -> None:
    assert lineage_roots(frame()).is_empty()
    assert lineage_edges(frame()).is_empty()


_CLAIMS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15)


@given(_CLAIMS)
def test_every_claim_ends_in_one_group_and_a_younger_repo_renames_none(
    claims: list[tuple[int, int]],
) -> None:
    bases: dict[int, list[str]] = {number: [] for number in range(10)}
    for child, parent in claims:
        bases[child].append(f"zoo/{parent}")
    rows = [repo(number, *names) for number, names in bases.items()]
    before = roots(*rows)
    assert all(before[f"id{child}"] == before[f"id{parent}"] for child, parent in claims)
    after = roots(*rows, repo(99, "zoo/0"))
    assert {hub_id: root for hub_id, root in after.items() if hub_id != "id99"} == before


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Any repos: claims of each other, of themselves and of strangers, copies, renames, tombstones.

    Dates may be missing and equal; names are drawn from few, so they clash.
    """
    count = draw(st.integers(1, 9))
    name = st.sampled_from([*(f"zoo/{n}" for n in range(count)), "ZOO/0", "zoo/old", "big/base"])
    rows = []
    for number in range(count):
        gone = draw(st.booleans())
        day = draw(st.sampled_from([None, 1, 2, 3]))
        rows.append(
            repo(
                number,
                *draw(st.lists(name, max_size=3)),
                digest=draw(st.sampled_from(["", "a" * 64, "b" * 64])),
                repo_id=draw(name),
                aliases=draw(st.lists(name, max_size=2)),
                created_at=day and datetime(2024, 1, day, tzinfo=UTC),
                accepted=not gone,
                reason="not_found" if gone else "",
                status="deleted" if gone else "listed",
            )
        )
    return rows


@given(graphs(), st.integers(0, 1000))
def test_any_graph_ends_in_roots_and_edges_that_do_not_hang_on_the_order_of_rows(
    rows: list[dict[str, Any]], seed: int
) -> None:
    table = pl.DataFrame(rows, schema=REPO_SCHEMA)
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    other = pl.DataFrame(shuffled, schema=REPO_SCHEMA)
    groups, edges = lineage_roots(table), lineage_edges(table)
    assert groups.equals(lineage_roots(other))
    assert edges.equals(lineage_edges(other))
    root = dict(groups.iter_rows())
    assert set(root) == {row["hub_id"] for row in rows}
    assert all(root[name] == name for name in root.values())  # a root is a member of its group
    known = edges.filter(pl.col("parent") != "")
    assert all(root[child] == root[parent] for child, parent in known["child", "parent"].rows())


@given(graphs(), st.integers(1, 4))
def test_repos_that_have_nothing_to_do_with_a_graph_move_nobody(
    rows: list[dict[str, Any]], count: int
) -> None:
    strangers = [repo(50 + n, digest=f"{n:064x}") for n in range(count)]
    before = lineage_roots(pl.DataFrame(rows, schema=REPO_SCHEMA))
    after = lineage_roots(pl.DataFrame([*strangers, *rows], schema=REPO_SCHEMA))
    assert dict(before.iter_rows()).items() <= dict(after.iter_rows()).items()
    assert after.height == before.height + count


def test_a_long_chain_and_a_wide_star_are_no_problem() -> None:
    chain = [repo(0), *(repo(n, f"zoo/{n - 1}") for n in range(1, 1_500))]
    star = [repo(n, "zoo/0") for n in range(1_500, 3_000)]
    table = pl.DataFrame([*chain, *star], schema=REPO_SCHEMA)
    assert set(lineage_roots(table)["lineage_root"]) == {"id0"}
    assert set(lineage_edges(table)["contradiction"]) == {""}
