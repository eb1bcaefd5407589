"""Which models descend from which, and the groups that may not be split apart. Pure, no I/O.

What it is: edges from ``base_model`` claims (what an author says: maybe wrong, renamed, in a
circle), from byte-identical weight files (proven), and from whatever else is known of the weights;
and the connected groups over all of them. A group lands whole in one split, so a wrong claim costs
a little data and never leaks. A claim that cannot be true as it stands is kept and flagged. What it
is not: a reconstruction of undocumented lineage from weights.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

import polars as pl

from ws_pipeline.hub.repo import STATUS_DELETED


class Evidence(StrEnum):
    """What an edge rests on."""

    CLAIM = "claim"
    """The author says so."""
    FILES = "files"
    """A weight file with the same sha256."""
    TENSORS = "tensors"
    """The same tokenised layers, under whatever names."""
    LAYERS = "layers"
    """Some of the layers are the same."""
    NEAR = "near"
    """All layers nearly the same: measured, not proven."""


class Contradiction(StrEnum):
    """Why a claim cannot be true as it stands; the first that holds, in this order."""

    SELF = "self"
    """It names itself as its base."""
    CIRCLE = "circle"
    """Its base descends from it, by claims."""
    COPY = "copy"
    """Its weight file is byte for byte its base's: nothing was tuned, merged or quantised."""
    YOUNGER_BASE = "younger_base"
    """Its base was created after it."""
    AMBIGUOUS_NAME = "ambiguous_name"
    """More than one repo has, or had, the name of the base; the present owner is taken."""


EDGE_SCHEMA: dict[str, pl.DataType] = {
    "child": pl.String(),  # hub_id
    "parent": pl.String(),  # hub_id; "" for a base model that the ledger does not know
    "parent_name": pl.String(),
    "relation": pl.String(),  # finetune, merge, quantized, adapter, "" if unstated; or identical,
    # shared, similar
    "evidence": pl.String(),  # an Evidence
    "proven": pl.Boolean(),
    "contradiction": pl.String(),  # a Contradiction, or ""
}

ROOT_SCHEMA: dict[str, pl.DataType] = {"hub_id": pl.String(), "lineage_root": pl.String()}

IDENTICAL, SHARED, SIMILAR = "identical", "shared", "similar"
"""Relations of edges that nobody claimed."""


class Edge(NamedTuple):
    """A row of EDGE_SCHEMA; see there."""

    child: str
    parent: str
    parent_name: str
    relation: str
    evidence: str
    proven: bool
    contradiction: str = ""


def lineage_edges(repos: pl.DataFrame, found: Iterable[Edge] = ()) -> pl.DataFrame:
    """Return the edges (EDGE_SCHEMA) among all repos of all families.

    A claim is resolved by the base's present name or a former one, without regard to case. Of repos
    with an identical safetensors file the later ones are children of the earliest created.

    Args:
        repos: ``hub/repos`` tables, concatenated; refused repos and tombstones count too.
        found: Edges that are known from the weights.
    """
    rows = _distinct_repos(repos)
    edges = [*_find_edges(rows), *found]
    frame = pl.DataFrame(edges, schema=EDGE_SCHEMA, orient="row")
    return frame.unique().sort(list(EDGE_SCHEMA))


def lineage_roots(repos: pl.DataFrame, found: Iterable[Edge] = ()) -> pl.DataFrame:
    """Return each repo's lineage group (ROOT_SCHEMA), named by the member all others descend from.

    Of several that descend from no other, or of a circle, the earliest created names the group: a
    tree's name does not hang on dates, which a copied folder changes. Repos that claim the same
    unknown base are one group. Cycles are fine: a group is a connected component. Adding a repo
    never renames a group unless it is a base of its members or joins two groups.

    Args:
        repos: ``hub/repos`` tables, concatenated; refused repos and tombstones count too.
        found: Edges that are known from the weights; they count like the others.
    """
    rows = _distinct_repos(repos)
    groups = _Groups()
    children = set()
    for edge in [*_find_edges(rows), *found]:
        groups.join(edge.child, edge.parent or f"name:{edge.parent_name.lower()}")
        if edge.parent and edge.parent != edge.child:
            children.add(edge.child)
    roots: dict[str, str] = {}
    # Bases first, of those the oldest: the first one seen names its group.
    for row in sorted(rows, key=lambda row: row["hub_id"] in children):
        roots.setdefault(groups.find(row["hub_id"]), row["hub_id"])
    data = [(row["hub_id"], roots[groups.find(row["hub_id"])]) for row in rows]
    return pl.DataFrame(data, schema=ROOT_SCHEMA, orient="row").sort("hub_id")


def _distinct_repos(repos: pl.DataFrame) -> list[dict[str, Any]]:
    """Return one row per hub_id, oldest first; a live row wins over its tombstone."""
    columns = ["hub_id", "repo_id", "aliases", "created_at", "base_models", "base_model_relation"]
    return (
        repos.with_columns(is_gone=pl.col("status").eq_missing(STATUS_DELETED))
        .sort(pl.col("accepted").not_(), "is_gone", "family", "revision", nulls_last=True)
        .unique("hub_id", keep="first", maintain_order=True)
        .select(*columns, "files", "is_gone")
        .sort(["created_at", "hub_id"], nulls_last=True)
        .to_dicts()
    )


def _find_edges(rows: list[dict[str, Any]]) -> list[Edge]:
    """Return claims, checked against each other and against the files, then identities."""
    claims, identities = list(_claims(rows)), list(_identities(rows))
    groups = _strong_groups(claims)
    copies = {(edge.child, edge.parent) for edge in identities}
    created = {row["hub_id"]: row["created_at"] for row in rows}

    def contradict(edge: Edge) -> str:
        child, parent = edge.child, edge.parent
        if not parent:
            return edge.contradiction
        if child == parent:
            return Contradiction.SELF
        if groups.get(child, child) == groups.get(parent, parent):
            return Contradiction.CIRCLE
        if (child, parent) in copies or (parent, child) in copies:
            return Contradiction.COPY
        dates = created[child], created[parent]
        if None not in dates and dates[0] < dates[1]:
            return Contradiction.YOUNGER_BASE
        return edge.contradiction

    checked = [edge._replace(contradiction=str(contradict(edge))) for edge in claims]
    return [*checked, *identities]


def _claims(rows: list[dict[str, Any]]) -> Iterator[Edge]:
    """Yield what authors say; of the contradictions only an ambiguous name is seen here."""
    # Whoever comes later wins: former names, names of deleted repos, present names, by age.
    named: list[tuple[str, str]] = [
        *((name, row["hub_id"]) for row in reversed(rows) for name in row["aliases"]),
        *((row["repo_id"], row["hub_id"]) for row in rows if row["is_gone"]),
        *((row["repo_id"], row["hub_id"]) for row in rows if not row["is_gone"]),
    ]
    ids: dict[str, str] = {}
    ambiguous = set()
    for name, hub_id in named:
        if ids.setdefault(name.lower(), hub_id) != hub_id:
            ambiguous.add(name.lower())
            ids[name.lower()] = hub_id
    for row in rows:
        for name in row["base_models"]:
            flag = str(Contradiction.AMBIGUOUS_NAME) if name.lower() in ambiguous else ""
            parent, relation = ids.get(name.lower(), ""), row["base_model_relation"]
            yield Edge(row["hub_id"], parent, name, relation, Evidence.CLAIM, False, flag)


def _identities(rows: list[dict[str, Any]]) -> Iterator[Edge]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        for sha256 in weight_digests(row["files"]):
            parent = first.setdefault(sha256, row)
            if parent["hub_id"] != row["hub_id"]:
                name = parent["repo_id"]
                yield Edge(
                    row["hub_id"], parent["hub_id"], name, IDENTICAL, Evidence.FILES, proven=True
                )


def weight_digests(files: Iterable[dict[str, Any]]) -> list[str]:
    """Return the sha256 of a repo's safetensors files, sorted; those that the hub states."""
    return sorted({f["sha256"] for f in files if f["path"].endswith(".safetensors")} - {"", None})


def _strong_groups(edges: list[Edge]) -> dict[str, int]:
    """Return the number of the circle, or of the single repo, that each claimant and base is in."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known = [(edge.child, edge.parent) for edge in edges if edge.parent]
    names = sorted({hub_id for pair in known for hub_id in pair})
    if not names:
        return {}
    place = {name: index for index, name in enumerate(names)}
    children = [place[child] for child, _ in known]
    parents = [place[parent] for _, parent in known]
    graph = coo_array(([True] * len(known), (children, parents)), shape=(len(names), len(names)))
    _, labels = connected_components(graph.tocsr(), directed=True, connection="strong")
    return dict(zip(names, labels.tolist(), strict=True))


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
