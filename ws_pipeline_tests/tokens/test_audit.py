"""The audit: each kind of leak is found without the verdicts that should have prevented it."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from ws_pipeline.tokens.audit import LEAK_KINDS, LEAK_SCHEMA, count_leaks, find_leaks
from ws_pipeline_tests.tokens.corpus_tables import (
    Weights,
    build,
    layers_frame,
    make_files,
    make_layers,
    make_repo,
    make_shard,
    make_weights,
    repos_frame,
)


def leaks(
    models: list[Weights], *, splits: str = "ab", revision: str = "r", **columns: list[Any]
) -> pl.DataFrame:
    """Audit models, one split letter each; ``columns`` are of the corpus or ``files``."""
    numbers = range(len(models))
    files = columns.pop("files", [[] for _ in numbers])
    base: dict[str, list[Any]] = {
        "hub_id": [f"id{n}" for n in numbers],
        "revision": ["r" for _ in numbers],
        "split": list(splits),
        "lineage_root": [f"id{n}" for n in numbers],
        "shard_sha256": [f"sha{n}" for n in numbers],
    }
    repos = [make_repo(n, files=files[n], revision=revision) for n in numbers]
    layers = [make_layers(n, weights, revision=revision) for n, weights in enumerate(models)]
    return find_leaks(
        pl.DataFrame(base | columns), repos_frame(repos), layers_frame(layers), near_distance=0.01
    )


def kinds(found: pl.DataFrame) -> set[str]:
    return set(found["kind"])


def test_strangers_in_two_splits_are_no_leak() -> None:
    found = leaks([make_weights(1), make_weights(2)])
    assert found.schema == LEAK_SCHEMA
    assert found.is_empty()
    assert count_leaks(found) == dict.fromkeys(LEAK_KINDS, 0)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"lineage_root": ["x", "x"]}, "lineage_root"),
        ({"shard_sha256": ["x", "x"]}, "shard_sha256"),
        ({"files": [make_files("f" * 64), make_files("f" * 64)]}, "file"),
    ],
)
def test_a_lineage_shard_or_file_in_two_splits_is_a_leak(
    columns: dict[str, list[Any]], kind: str
) -> None:
    models = [make_weights(1), make_weights(2)]
    found = leaks(models, **columns)
    assert kinds(found) == {kind}
    assert found.select("hub_id", "split", "other_hub_id", "other_split").row(0) == (
        "id0",
        "a",
        "id1",
        "b",
    )
    assert leaks(models, splits="aa", **columns).is_empty()


def test_files_without_a_digest_are_no_leak() -> None:
    assert leaks(
        [make_weights(1), make_weights(2)], files=[make_files(""), make_files("")]
    ).is_empty()


def test_the_same_layers_one_layer_and_nearly_the_same_are_leaks() -> None:
    weights = make_weights(1)
    renamed = {f"x.{name}": values for name, values in weights.items()}
    assert kinds(leaks([weights, renamed])) == {"tensors", "layer", "near"}
    frozen = make_weights(2) | {"layers.1.weight": weights["layers.0.weight"]}
    assert kinds(leaks([weights, frozen])) == {"layer"}
    rounded = {name: v.astype(np.float16).astype(np.float32) for name, v in weights.items()}
    assert kinds(leaks([weights, rounded])) == {"near"}
    assert leaks([weights, rounded], splits="aa").is_empty()


def test_the_same_weights_at_another_scale_are_other_weights() -> None:
    weights = make_weights(1)
    assert leaks([weights, {name: values * 2 for name, values in weights.items()}]).is_empty()


def test_only_the_revisions_of_the_corpus_count() -> None:
    files = [make_files("f" * 64), make_files("f" * 64)]
    moved_on = leaks([make_weights(1), make_weights(1)], revision="newer", files=files)
    assert moved_on.is_empty()


def test_a_corpus_as_it_is_built_has_no_leak() -> None:
    first = make_weights(0)
    rounded = {name: v.astype(np.float16).astype(np.float32) for name, v in first.items()}
    frozen = make_weights(7) | {"layers.1.weight": first["layers.0.weight"]}
    models = [first, rounded, frozen, first, *(make_weights(seed) for seed in range(1, 30))]
    numbers = range(len(models))
    layers = [make_layers(n, weights) for n, weights in enumerate(models)]
    repos = [make_repo(n, files=make_files(f"{n // 2:064x}")) for n in numbers]
    corpus = build([make_shard(n) for n in numbers], repos, layers).models
    assert corpus["split"].n_unique() == 3
    found = find_leaks(corpus, repos_frame(repos), layers_frame(layers), near_distance=0.01)
    assert found.is_empty()
