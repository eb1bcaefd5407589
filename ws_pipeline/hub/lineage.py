"""Which models descend from which, and the groups that may not be split apart. Pure, no I/O.

What it is: edges from ``base_model`` claims (what an author says: maybe wrong, renamed, in a
circle) and from byte-identical weight files (proven), and the connected groups over both. A group
lands whole in one split, so a wrong claim costs a little data and never leaks. What it is not: a
reconstruction of undocumented lineage from weights.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

EDGE_SCHEMA: dict[str, pl.DataType] = {
    "child": pl.String(),  # hub_id
    "parent": pl.String(),  # hub_id; "" for a base model that the ledger does not know
    "parent_name": pl.String(),
    "relation": pl.String(),  # finetune, merge, quantized, adapter, identical, "" if unstated
    "proven": pl.Boolean(),
}

ROOT_SCHEMA: dict[str, pl.DataType] = {"hub_id": pl.String(), "lineage_root": pl.String()}


def lineage_edges(repos: pl.DataFrame) -> pl.DataFrame:
    """Return the edges (EDGE_SCHEMA) among all repos of all families.

    A claim is resolved by the base's present name or a former one, without regard to case. Of repos
    with an identical safetensors file the later ones are children of the earliest created.

    Args:
        repos: ``hub/repos`` tables, concatenated; refused repos and tombstones count too.
    """
    rows = _distinct_repos(repos)
    edges = [*_claims(rows), *_identities(rows)]
    frame = pl.DataFrame(edges, schema=EDGE_SCHEMA, orient="row")
    return frame.unique().sort(list(EDGE_SCHEMA))


def lineage_roots(repos: pl.DataFrame) -> pl.DataFrame:
    """Return each repo's lineage group (ROOT_SCHEMA), named by the member all others descend from.

    Of several that descend from no other, or of a circle, the earliest created names the group: a
    tree's name does not hang on dates, which a copied folder changes. Repos that claim the same
    unknown base are one group. Cycles are fine: a group is a connected component. Adding a repo
    never renames a group unless it is a base of its members or joins two groups.

    Args:
        repos: ``hub/repos`` tables, concatenated; refused repos and tombstones count too.
    """
    rows = _distinct_repos(repos)
    groups = _Groups()
    children = set()
    for child, parent, parent_name, _, _ in [*_claims(rows), *_identities(rows)]:
        groups.join(child, parent or f"name:{parent_name.lower()}")
        if parent:
            children.add(child)
    roots: dict[str, str] = {}
    # Bases first, of those the oldest: the first one seen names its group.
    for row in sorted(rows, key=lambda row: row["hub_id"] in children):
        roots.setdefault(groups.find(row["hub_id"]), row["hub_id"])
    data = [(row["hub_id"], roots[groups.find(row["hub_id"])]) for row in rows]
    return pl.DataFrame(data, schema=ROOT_SCHEMA, orient="row").sort("hub_id")


_Edge = tuple[str, str, str, str, bool]


def _distinct_repos(repos: pl.DataFrame) -> list[dict[str, Any]]:
    """Return one row per hub_id, oldest first; a live row wins over its tombstone."""
    columns = ["hub_id", "repo_id", "aliases", "created_at", "base_models", "base_model_relation"]
    return (
        repos.sort("accepted", descending=True)
        .unique("hub_id", keep="first", maintain_order=True)
        .select(*columns, "files")
        .sort(["created_at", "hub_id"], nulls_last=True)
        .to_dicts()
    )


def _claims(rows: list[dict[str, Any]]) -> Iterator[_Edge]:
    ids: dict[str, str] = {}
    for row in rows:
        for name in row["aliases"]:
            ids.setdefault(name.lower(), row["hub_id"])
    ids |= {row["repo_id"].lower(): row["hub_id"] for row in rows}
    for row in rows:
        for name in row["base_models"]:
            parent = ids.get(name.lower(), "")
            if parent != row["hub_id"]:
                yield row["hub_id"], parent, name, row["base_model_relation"], False


def _identities(rows: list[dict[str, Any]]) -> Iterator[_Edge]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        for file in row["files"]:
            if not file["sha256"] or not file["path"].endswith(".safetensors"):
                continue
            parent = first.setdefault(file["sha256"], row)
            if parent["hub_id"] != row["hub_id"]:
                yield row["hub_id"], parent["hub_id"], parent["repo_id"], "identical", True


class _Groups:
    """Disjoint sets with path halving."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, item: str) -> str:
        parent = self._parent
        while parent.setdefault(item, item) != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, one: str, other: str) -> None:
        self._parent[self.find(one)] = self.find(other)
