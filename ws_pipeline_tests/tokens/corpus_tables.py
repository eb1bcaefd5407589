"""Rows of the tables that a corpus is made of: repos, shards and layers of made-up models."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ws_pipeline.hub.repo import REPO_SCHEMA
from ws_pipeline.tokens.corpus import Corpus, SplitPolicy, build_corpus
from ws_pipeline.tokens.corpus_rules import CorpusPolicy
from ws_pipeline.tokens.shards import SHARDS_SCHEMA
from ws_pipeline.weights.layers import LAYERS_SCHEMA
from ws_pipeline.weights.statistics import measure_layer

Weights = dict[str, NDArray[Any]]
IDENTITY = {"revision": "r", "accepted": True, "reason": "", "detail": "", "reused": False}


def make_repo(number: int, **changes: Any) -> dict[str, Any]:
    """Repo ``zoo/m<number>`` of one of three families; a higher number is younger."""
    row = {
        "hub_id": f"id{number}", "repo_id": f"zoo/m{number}", **IDENTITY,
        "family": f"f{number % 3}", "licence": "mit",
        "created_at": datetime(2026, 1, 1, minute=number % 60, hour=number // 60, tzinfo=UTC),
        "base_models": [], "base_model_relation": "", "files": [], "card": "{}", "aliases": [],
    }  # fmt: skip
    return row | changes


def make_shard(number: int, **changes: Any) -> dict[str, Any]:
    """The shard of ``zoo/m<number>``."""
    row = {
        "hub_id": f"id{number}", "repo_id": f"zoo/m{number}", **IDENTITY,
        "manifest": f"key{number}", "shard_sha256": f"sha{number}",
        "num_values": 10, "num_params": 10, "num_bytes": 40, "layers": [],
    }  # fmt: skip
    return row | changes


def make_files(digest: str) -> list[dict[str, Any]]:
    """A repo's ``files``: one safetensors file of a digest."""
    return [{"path": "model.safetensors", "num_bytes": 9, "sha256": digest, "blob_id": ""}]


def make_layers(number: int, weights: Weights, **changes: Any) -> dict[str, Any]:
    """The row of ``weights/layers``, its statistics measured from weights ``{name: (out, in)}``."""
    layers = [
        {
            "index": index, "name": name, "bias_name": "", "role": "linear",
            "treatment": "tokenised", "rows": values.shape[0], "cols": values.shape[1],
        }
        | measure_layer(name, values, None).to_dict()
        for index, (name, values) in enumerate(weights.items())
    ]  # fmt: skip
    row = {"hub_id": f"id{number}", "repo_id": f"zoo/m{number}", **IDENTITY, "layers": layers}
    return row | changes


def make_weights(seed: int, *, num_layers: int = 3) -> Weights:
    """Normal weights of some layers of 16 by 32 numbers."""
    generator = np.random.default_rng(seed)
    return {
        f"layers.{i}.weight": generator.normal(0.0, 0.1, (16, 32)).astype(np.float32)
        for i in range(num_layers)
    }


def repos_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A ``hub/repos`` table."""
    return pl.DataFrame(rows, schema=REPO_SCHEMA)


def layers_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A ``weights/layers`` table."""
    return pl.DataFrame(rows, schema=LAYERS_SCHEMA)


def build(
    shards: list[dict[str, Any]],
    repos: list[dict[str, Any]],
    layers: list[dict[str, Any]] | None = None,
    *,
    splits: SplitPolicy | None = None,
    policy: CorpusPolicy | None = None,
) -> Corpus:
    """Build a corpus from rows."""
    return build_corpus(
        pl.DataFrame(shards, schema=SHARDS_SCHEMA),
        repos_frame(repos),
        layers_frame(layers or []),
        splits=splits or SplitPolicy(),
        policy=policy or CorpusPolicy(),
    )


def build_models(models: list[Weights], **options: Any) -> Corpus:
    """Build a corpus of models that nothing but their weights connects; the first is the oldest."""
    numbers = range(len(models))
    return build(
        [make_shard(n) for n in numbers],
        [make_repo(n) for n in numbers],
        [make_layers(n, weights) for n, weights in enumerate(models)],
        **options,
    )


def reasons(corpus: Corpus) -> dict[str, str]:
    """{hub_id: reason} of all verdicts."""
    return dict(corpus.verdicts.select("hub_id", "reason").iter_rows())
