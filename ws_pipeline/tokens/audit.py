"""Whether the splits of a corpus are clean, found again from the tables below it. No I/O.

What it is: counts, and every lineage, file, shard, layer or near copy that lies in more than one
split, looked for without the verdicts and edges by which the corpus was made. What it is not: a
repair.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

from ws_pipeline.tokens.fingerprints import Fingerprint, NearIndex, read_fingerprints

LEAK_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),  # lineage_root, shard_sha256, file, tensors, layer, near
    "value": pl.String(),
    "hub_id": pl.String(),
    "split": pl.String(),
    "other_hub_id": pl.String(),
    "other_split": pl.String(),
}

LEAK_KINDS = ("lineage_root", "shard_sha256", "file", "tensors", "layer", "near")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Holding:
    """What one model has that no model of another split may have."""

    hub_id: str
    split: str
    kind: str
    value: str


def count_corpus(corpus: pl.DataFrame) -> pl.DataFrame:
    """Return split, family, licence, num_models, num_params."""
    return (
        corpus.group_by("split", "family", "licence")
        .agg(num_models=pl.len(), num_params=pl.col("num_params").sum())
        .sort("split", "family", "licence")
    )


def find_leaks(
    corpus: pl.DataFrame, repos: pl.DataFrame, layers: pl.DataFrame, *, near_distance: float
) -> pl.DataFrame:
    """Return pairs of models in two splits that must not be (LEAK_SCHEMA); one for each thing.

    Args:
        corpus: ``hub_id, revision, split, lineage_root, shard_sha256`` of the corpus' models.
        repos: ``hub/repos`` of all families, for the sha256 of their files. Here and in ``layers``
            only the corpus' own revisions count: a repo may have moved on since.
        layers: ``weights/layers`` of all families.
        near_distance: From which distance on two models are different.
    """
    splits: dict[str, str] = dict(corpus.select("hub_id", "split").iter_rows())
    identity = ["hub_id", "revision"]
    models = read_fingerprints(layers.join(corpus, on=identity, how="semi"))
    holdings = [
        *_column_holdings(corpus),
        *_file_holdings(repos.join(corpus, on=identity, how="semi"), splits),
        *_layer_holdings(models, splits),
    ]
    first: dict[tuple[str, str], _Holding] = {}
    leaks: dict[tuple[str, str], tuple[str, ...]] = {}
    for item in holdings:
        other = first.setdefault((item.kind, item.value), item)
        if other.split != item.split:
            leaks.setdefault(
                (item.kind, item.value),
                (item.kind, item.value, other.hub_id, other.split, item.hub_id, item.split),
            )
    rows = [*leaks.values(), *_near_leaks(models, splits, near_distance)]
    return pl.DataFrame(rows, schema=LEAK_SCHEMA, orient="row").sort("kind", "value", "hub_id")


def count_leaks(leaks: pl.DataFrame) -> dict[str, int]:
    """Return {kind: how many}, of all kinds."""
    found = dict(leaks.group_by("kind").len().iter_rows())
    return {kind: int(found.get(kind, 0)) for kind in LEAK_KINDS}


def _column_holdings(corpus: pl.DataFrame) -> Iterator[_Holding]:
    for row in corpus.select("hub_id", "split", "lineage_root", "shard_sha256").iter_rows(
        named=True
    ):
        for kind in ("lineage_root", "shard_sha256"):
            yield _Holding(
                hub_id=row["hub_id"], split=row["split"], kind=kind, value=str(row[kind])
            )


def _file_holdings(repos: pl.DataFrame, splits: Mapping[str, str]) -> Iterator[_Holding]:
    files = (
        repos.select("hub_id", file="files")
        .explode("file")
        .drop_nulls("file")
        .unnest("file")
        .filter(pl.col("path").str.ends_with(".safetensors") & (pl.col("sha256") != ""))
    )
    for hub_id, digest in files.select("hub_id", "sha256").iter_rows():
        yield _Holding(hub_id=hub_id, split=splits[hub_id], kind="file", value=digest)


def _layer_holdings(
    models: Mapping[str, Fingerprint], splits: Mapping[str, str]
) -> Iterator[_Holding]:
    for hub_id, model in models.items():
        split = splits[hub_id]
        yield _Holding(hub_id=hub_id, split=split, kind="tensors", value=model.key)
        for key in model.proofs:
            yield _Holding(hub_id=hub_id, split=split, kind="layer", value=sha256(key).hexdigest())


def _near_leaks(
    models: Mapping[str, Fingerprint], splits: Mapping[str, str], near_distance: float
) -> Iterator[tuple[str, ...]]:
    indexes: dict[str, NearIndex] = {}
    for hub_id, model in models.items():
        split = splits[hub_id]
        for other_split, index in indexes.items():
            found = index.find(model) if other_split != split else []
            for distance, other in found[:1]:
                yield "near", f"{distance:.3g}", other, other_split, hub_id, split
        own = indexes.setdefault(split, NearIndex(distance=near_distance))
        own.add(hub_id, model)
