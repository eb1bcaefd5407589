from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.hub.lineage import lineage_edges, lineage_roots
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
