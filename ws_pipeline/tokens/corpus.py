"""The corpus: one row per tokenised model with its split, and the audit of the splits. No I/O.

Splits follow lineage: a base model, its fine-tunes and byte-identical copies land in one split, by
a hash of the lineage root, so that a row does not move when others are added. (Only a new repo that
joins two lineages can move one of them.) Not here: who descends from whom (``hub.lineage``).
"""

import hashlib
from dataclasses import dataclass

import polars as pl

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.lineage import lineage_roots
from ws_pipeline.tokens.records import TOKEN_LAYER_STRUCT

SPLITS = ("train", "val", "test")

CORPUS_SCHEMA: dict[str, pl.DataType] = {
    "hub_id": pl.String(),
    "repo_id": pl.String(),
    "revision": pl.String(),
    "family": pl.String(),
    "split": pl.String(),
    "lineage_root": pl.String(),
    "weight": pl.Float64(),
    "licence": pl.String(),
    "manifest": pl.String(),
    "shard_sha256": pl.String(),
    "num_params": pl.Int64(),
    "num_values": pl.Int64(),
    "layers": pl.List(TOKEN_LAYER_STRUCT),
    "card": pl.String(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPolicy:
    """Part of a recipe: how models are split and how often each is drawn.

    Attributes:
        val_share: Expected share of lineages in ``val``.
        test_share: Expected share of lineages in ``test``.
        seed: Of the hash.
        family_exponent: A family of n models is drawn in proportion to n to this power: 1 draws
            every model alike, 0 every family alike.
    """

    val_share: float = 0.15
    test_share: float = 0.20
    seed: int = 0
    family_exponent: float = 1.0

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
        if not 0.0 <= self.family_exponent <= 1.0:
            raise ConfigError(
                f"SplitPolicy.family_exponent must be within [0, 1], it is {self.family_exponent}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusAudit:
    """What a corpus consists of, and what must not be: copies and lineages in two splits.

    Attributes:
        counts: split, family, licence, num_models, num_params.
        num_shared_shards: Shards (so: identical weights) that lie in more than one split.
        num_shared_lineages: Lineage roots that lie in more than one split.
    """

    counts: pl.DataFrame
    num_shared_shards: int
    num_shared_lineages: int


def build_corpus(shards: pl.DataFrame, repos: pl.DataFrame, policy: SplitPolicy) -> pl.DataFrame:
    """Join the accepted shards of all families with their repos and split them.

    Args:
        shards: ``tokens/shards`` of all families.
        repos: ``hub/repos`` of all families; also those that were refused, for their lineage.
        policy: Shares, seed and balance.

    Returns:
        A frame of CORPUS_SCHEMA, sorted by ``hub_id``; a model that is in two families comes once.
    """
    accepted = shards.filter("accepted").unique("hub_id", keep="first", maintain_order=True)
    known = repos.select("hub_id", "family", "licence", "card").unique("hub_id", keep="first")
    rows = accepted.join(known, on="hub_id", how="left").join(
        lineage_roots(repos), on="hub_id", how="left"
    )
    rows = rows.with_columns(pl.col("lineage_root").fill_null(pl.col("hub_id")))
    rows = merge_identical(rows)
    splits = [assign_split(root, policy) for root in rows["lineage_root"]]
    family_size = pl.len().over("family").cast(pl.Float64)
    rows = rows.with_columns(
        split=pl.Series(splits, dtype=pl.String),
        weight=family_size.pow(policy.family_exponent - 1.0),
    )
    return rows.select(pl.col(name).cast(dtype) for name, dtype in CORPUS_SCHEMA.items()).sort(
        "hub_id"
    )


def assign_split(lineage_root: str, policy: SplitPolicy) -> str:
    """Return the split of a lineage: a hash of its root and the seed, uniform in [0, 1)."""
    digest = hashlib.sha256(f"{policy.seed}:{lineage_root}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < policy.test_share:
        return "test"
    return "val" if place < policy.test_share + policy.val_share else "train"


def merge_identical(rows: pl.DataFrame) -> pl.DataFrame:
    """Give models with identical shards one lineage root, the smallest of theirs.

    The hub sees identical files; here also files that differ in nothing but their metadata.
    """
    while True:
        smallest = pl.col("lineage_root").min()
        merged = rows.with_columns(smallest.over("shard_sha256").alias("merged_root"))
        merged = merged.with_columns(
            pl.col("merged_root").min().over("lineage_root").alias("lineage_root")
        ).drop("merged_root")
        if merged["lineage_root"].equals(rows["lineage_root"]):
            return rows
        rows = merged


def audit_corpus(corpus: pl.DataFrame) -> CorpusAudit:
    """Count models and parameters per split, family and licence, and leaks between splits."""
    counts = (
        corpus.group_by("split", "family", "licence")
        .agg(num_models=pl.len(), num_params=pl.col("num_params").sum())
        .sort("split", "family", "licence")
    )
    return CorpusAudit(
        counts=counts,
        num_shared_shards=_count_shared(corpus, "shard_sha256"),
        num_shared_lineages=_count_shared(corpus, "lineage_root"),
    )


def _count_shared(corpus: pl.DataFrame, column: str) -> int:
    splits = corpus.group_by(column).agg(pl.col("split").n_unique().alias("num_splits"))
    return splits.filter(pl.col("num_splits") > 1).height
