"""The corpus: one row per model that goes in with its split, and what was judged of all. No I/O.

Splits follow lineage: a base model, its fine-tunes, copies and whoever shares a layer land in one
split, by a hash of the lineage root, so that a row does not move when others are added. (Only a new
repo that joins two lineages can move one of them.) Not here: who descends from whom
(``hub.lineage``), who goes in (``corpus_rules``), whether the splits are clean (``audit``).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.lineage import Edge, lineage_edges, lineage_roots, weight_digests
from ws_pipeline.hub.repo import accept, build_frame, refuse
from ws_pipeline.tokens.corpus_rules import (
    COPY_RULES,
    LINEAGE_RULES,
    CorpusPolicy,
    CorpusVerdict,
    Member,
    copy_edges,
    judge_members,
    shared_layer_edges,
)
from ws_pipeline.tokens.fingerprints import read_fingerprints
from ws_pipeline.tokens.records import TOKEN_LAYER_STRUCT

SPLITS = ("train", "val", "test")

CORPUS_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "repo_id": pl.String(),
    "revision": pl.String(),
    "family": pl.String(),
    "split": pl.String(),
    "lineage_root": pl.String(),
    "licence": pl.String(),
    "manifest": pl.String(),
    "shard_sha256": pl.String(),
    "num_params": pl.Int64(),
    "num_values": pl.Int64(),
    "layers": pl.List(TOKEN_LAYER_STRUCT),
    "card": pl.String(),
}

VERDICT_PAYLOAD: dict[str, pl.DataType] = {
    "family": pl.String(),
    "lineage_root": pl.String(),
    "twin": pl.String(),  # hub_id of the model in the corpus that this one repeats; "" otherwise
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPolicy:
    """Part of a recipe: how models are split. How often each is drawn: ``mixture``.

    Attributes:
        val_share: Expected share of lineages in ``val``.
        test_share: Expected share of lineages in ``test``.
        seed: Of the hash.
    """

    val_share: float = 0.15
    test_share: float = 0.20
    seed: int = 0

    def __post_init__(self) -> None:
        shares = {"val_share": self.val_share, "test_share": self.test_share}
        for name, share in shares.items():
            if not 0.0 <= share <= 0.9:
                raise ConfigError(f"SplitPolicy.{name} must be within [0, 0.9], it is {share}.")
        if sum(shares.values()) > 0.9:
            raise ConfigError(
                f"SplitPolicy must leave a tenth to train; val and test take "
                f"{sum(shares.values())}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What is made of all families' shards.

    Attributes:
        models: CORPUS_SCHEMA, sorted by ``hub_id``: what goes in.
        verdicts: KEY_SCHEMA and VERDICT_PAYLOAD: one row per tokenised model, with its reason.
        edges: ``hub.lineage.EDGE_SCHEMA``: claims, and what files and weights prove.
    """

    models: pl.DataFrame
    verdicts: pl.DataFrame
    edges: pl.DataFrame


def build_corpus(
    shards: pl.DataFrame,
    repos: pl.DataFrame,
    layers: pl.DataFrame,
    *,
    splits: SplitPolicy,
    policy: CorpusPolicy,
) -> Corpus:
    """Judge the accepted shards of all families, find their lineages and split those that go in.

    Args:
        shards: ``tokens/shards`` of all families. A model that is in two families comes once.
        repos: ``hub/repos`` of all families; also those that were refused, for their lineage.
        layers: ``weights/layers`` of all families: ``hub_id, revision, accepted, layers``.
        splits: Shares, seed and balance.
        policy: What goes in.
    """
    rows = _join_repos(shards, repos)
    members = _list_members(rows, layers)
    copies = judge_members(members, policy, COPY_RULES)
    originals = [member for member in members if copies[member.hub_id].accept]
    found: list[Edge] = [*copy_edges(members, copies), *shared_layer_edges(originals)]
    roots: Mapping[str, str] = dict(lineage_roots(repos, found).iter_rows())
    rooted = (replace(m, lineage_root=roots.get(m.hub_id, m.hub_id)) for m in originals)
    verdicts = copies | judge_members(rooted, policy, LINEAGE_RULES)
    rows = rows.with_columns(
        lineage_root=pl.col("hub_id").replace_strict(roots, default=pl.col("hub_id"))
    )
    judged = _verdict_rows(rows, verdicts)
    kept = judged.filter("accepted").select("hub_id")
    return Corpus(
        models=_split_models(rows.join(kept, on="hub_id", how="semi"), splits),
        verdicts=judged,
        edges=lineage_edges(repos, found),
    )


def assign_split(lineage_root: str, policy: SplitPolicy) -> str:
    """Return the split of a lineage: a hash of its root and the seed, uniform in [0, 1)."""
    digest = hashlib.sha256(f"{policy.seed}:{lineage_root}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < policy.test_share:
        return "test"
    return "val" if place < policy.test_share + policy.val_share else "train"


def _join_repos(shards: pl.DataFrame, repos: pl.DataFrame) -> pl.DataFrame:
    """Return the accepted shards with what the ledger says of their repos, oldest first."""
    columns = ("family", "licence", "card", "created_at", "files")
    known = (
        repos.sort(pl.col("accepted").not_(), "family", "revision")
        .unique("hub_id", keep="first", maintain_order=True)
        .select("hub_id", *columns)
    )
    return (
        shards.filter("accepted")
        .sort("hub_id", "revision")
        .unique("hub_id", keep="first", maintain_order=True)
        .join(known, on="hub_id", how="left")
        .sort("created_at", "hub_id", nulls_last=True)
    )


def _list_members(rows: pl.DataFrame, layers: pl.DataFrame) -> list[Member]:
    fingerprints = read_fingerprints(layers.join(rows, on=["hub_id", "revision"], how="semi"))
    return [
        Member(
            hub_id=row["hub_id"],
            repo_id=row["repo_id"],
            file_digests=tuple(weight_digests(row["files"] or ())),
            shard_sha256=row["shard_sha256"],
            fingerprint=fingerprints.get(row["hub_id"]),
        )
        for row in rows.select("hub_id", "repo_id", "files", "shard_sha256").iter_rows(named=True)
    ]


def _verdict_rows(rows: pl.DataFrame, verdicts: Mapping[str, CorpusVerdict]) -> pl.DataFrame:
    judged: list[dict[str, Any]] = []
    columns = ("hub_id", "repo_id", "revision", "family", "lineage_root")
    for row in rows.select(columns).iter_rows(named=True):
        verdict = verdicts[row["hub_id"]]
        payload = {name: row[name] for name in ("family", "lineage_root")} | {"twin": verdict.twin}
        if verdict.reason is None:
            judged.append(accept(row, **payload))
        else:
            judged.append(refuse(row, verdict.reason, verdict.detail, **payload))
    return build_frame(judged, VERDICT_PAYLOAD)


def _split_models(rows: pl.DataFrame, policy: SplitPolicy) -> pl.DataFrame:
    """Return CORPUS_SCHEMA of the models that go in."""
    splits = [assign_split(root, policy) for root in rows["lineage_root"]]
    rows = rows.with_columns(split=pl.Series(splits, dtype=pl.String))
    return rows.select(pl.col(name).cast(dtype) for name, dtype in CORPUS_SCHEMA.items()).sort(
        "hub_id"
    )
