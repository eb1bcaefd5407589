"""A synthetic population whose truth is known: what the tests of this package measure against.

Every lineage has a hidden vector z; its models (checkpoints, fine-tunes) lie close to it. Accuracy
is linear in z and does not depend on family or hyper-parameters; the generalisation gap is linear
in the learning rate's log and known to the hyper-parameters alone. The backbone's embedding is a
noisy rotation of z; the untrained one is noise; s(W) sees `statistics_share` of z's coordinates.
"""

import json
from dataclasses import dataclass

import numpy as np
import polars as pl

STATS = [f"{p}_{m}" for p in "wb" for m in ("mean", "std", "q01", "q25", "q50", "q75", "q99")]
HIDDEN = 6
FAMILIES = ("bert", "cnn", "mlp", "vit")


@dataclass(frozen=True, kw_only=True)
class Population:
    corpus: pl.DataFrame
    layers: pl.DataFrame
    embeddings: dict[str, pl.DataFrame]
    edges: pl.DataFrame
    hidden: np.ndarray


def card(accuracy: object, gap: object = None, factors: object = None, epoch: object = None) -> str:
    metrics = [{"type": "accuracy", "value": accuracy}]
    if gap is not None:
        metrics.append({"type": "generalization_gap", "value": gap})
    if epoch is not None:
        metrics.append({"type": "epoch", "value": epoch})
    result = {"task": {"type": "t"}, "dataset": {"name": "d"}, "metrics": metrics}
    return json.dumps(
        {"generating_factors": factors or {}, "model-index": [{"name": "m", "results": [result]}]}
    )


def create_population(
    *,
    num_lineages: int = 80,
    models_per_lineage: int = 3,
    noise: float = 0.05,
    statistics_share: float = 0.5,
    seed: int = 0,
) -> Population:
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=HIDDEN) / np.sqrt(HIDDEN)
    rotation = rng.normal(size=(HIDDEN, 16))
    rows, hidden, edges, layers = [], [], [], []
    for lineage in range(num_lineages):
        family = FAMILIES[lineage % len(FAMILIES)]
        root = rng.normal(size=HIDDEN)
        split = ("train", "train", "val", "test")[(lineage // len(FAMILIES)) % 4]
        for step in range(models_per_lineage):
            z = root + noise * rng.normal(size=HIDDEN)
            rate = float(10 ** rng.uniform(-4, -1))
            gap = 0.05 * (np.log10(rate) + 2.5) + 0.002 * rng.normal()
            name = f"{lineage:04d}-{step}"
            rows.append(
                {
                    "hub_id": f"id-{name}",
                    "repo_id": f"zoo/{family}-{name}",
                    "revision": f"{lineage:020x}{step:020x}",
                    "family": family,
                    "split": split,
                    "lineage_root": f"id-{lineage:04d}-0",
                    "num_params": 1000 * (1 + FAMILIES.index(family)),
                    "num_bytes": 4000 * (1 + FAMILIES.index(family)),
                    "card": card(
                        0.5 + 0.1 * float(z @ direction),
                        gap,
                        {"learning_rate": rate, "optimizer": "adam" if step % 2 else "sgd"},
                        epoch=step,
                    ),
                }
            )
            if step:
                edges.append((f"id-{name}", f"id-{lineage:04d}-{step - 1}", "finetune"))
            hidden.append(z)
            layers.append(model_layers(z, FAMILIES.index(family), statistics_share, rng))
    corpus, latent = pl.DataFrame(rows), np.array(hidden)
    backbone = latent @ rotation + 0.02 * rng.normal(size=(len(latent), 16))
    return Population(
        corpus=corpus,
        layers=corpus.select("hub_id", "repo_id", "revision").with_columns(
            pl.Series("layers", layers)
        ),
        embeddings={
            "backbone": embedding_frame(corpus, backbone),
            "untrained": embedding_frame(corpus, rng.normal(size=(len(latent), 16))),
        },
        edges=pl.DataFrame(
            edges,
            schema={"child": pl.String, "parent": pl.String, "relation": pl.String},
            orient="row",
        ),
        hidden=latent,
    )


def embedding_frame(corpus: pl.DataFrame, vectors: np.ndarray) -> pl.DataFrame:
    values = pl.Series("embedding", vectors.astype(np.float32).tolist(), dtype=pl.List(pl.Float32))
    return corpus.select("hub_id", "repo_id", "revision").with_columns(values)


def model_layers(
    z: np.ndarray, family: int, share: float, rng: np.random.Generator
) -> list[dict[str, object]]:
    known = z[: round(share * len(z))]
    layers: list[dict[str, object]] = []
    for index in range(2 + family):
        stats: dict[str, float | None] = {name: float(rng.normal(0, 0.1)) for name in STATS}
        if index == 0:
            stats.update(dict(zip(STATS, (float(v) for v in known), strict=False)))
        if index == 1:
            stats.update({name: None for name in STATS if name.startswith("b")})
        layers.append(
            {
                "index": index,
                "name": f"layer{index}.weight",
                "role": "linear" if index else "embedding",
                "treatment": "tokenised",
                **stats,
            }
        )
    carried = {"index": len(layers), "name": "norm", "role": "norm", "treatment": "carried"}
    return [*layers, {**carried, **dict.fromkeys(STATS)}]


def layer_errors(corpus: pl.DataFrame, level: float, *, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    roles = {"embedding": 0.5, "linear": 1.0, "conv": 1.5}
    return pl.DataFrame(
        [
            {
                "hub_id": hub_id,
                "layer": f"{role}.weight",
                "role": role,
                "num_params": 100,
                "relative_error": level * factor * float(rng.uniform(0.9, 1.1)),
            }
            for hub_id in corpus["hub_id"]
            for role, factor in roles.items()
        ]
    )
