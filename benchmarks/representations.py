"""What does an embedding say of a zoo that its backbone never saw, block by block?

Reads the repos of a folder (`<name>/{model.safetensors, README.md}`), embeds them with a trained
and an untrained backbone and predicts accuracy and generalisation gap. Every lineage is held out
once: of five folds of lineages (by a hash of the root) one is test, the next validation, the rest
training. Printed, as Markdown: R2 and Kendall's tau over all held-out predictions, and the
difference to s(W), with intervals over lineages; ridge and, with --boosted, boosted trees.

    python benchmarks/representations.py REPOS --backbone DIR [--max N] [--boosted]
"""

import argparse
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml

from ws_pipeline.backbone.embed import embed_tokens
from ws_pipeline.backbone.model import Backbone, untrained
from ws_pipeline.backbone.sweep import layout_of
from ws_pipeline.evaluation.bootstrap import PREDICTION_METRICS, draw_lineage_counts
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.labels import feature_label
from ws_pipeline.evaluation.properties import evaluate_properties
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.packing import plan_checkpoint
from ws_pipeline.weights.records import LAYER_STRUCT, layer_to_record

NUM_FOLDS = 5

SHOWN = (
    "mean",
    "hyper_parameters_no_epoch",
    "hyper_parameters",
    "statistics",
    "spectra",
    "statistics_spectra",
    "end_sketches",
    "untrained_latents",
    "backbone_latents",
    "untrained",
    "backbone",
    "hyper_parameters@boosted",
    "statistics@boosted",
    "backbone@boosted",
)


def read_card(folder: Path) -> dict[str, Any]:
    """Return the front matter of a model card."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    card: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    return card


def find_root(folder: Path, name: str) -> str:
    """Return the run that a model goes back to, through checkpoints and fine-tunes."""
    seen = set()
    while name not in seen and (folder / name / "README.md").is_file():
        seen.add(name)
        name = str(read_card(folder / name).get("base_model") or name).rpartition("/")[2]
    return name.partition("-epoch")[0]


def fold_of(root: str) -> int:
    """Return the fold of a lineage: by a hash, so that more models move none."""
    return int(hashlib.sha256(root.encode()).hexdigest()[:8], 16) % NUM_FOLDS


def split_of(root: str, fold: int) -> str:
    """Return the split of a lineage when a fold is the test."""
    return {0: "test", 1: "val"}.get((fold_of(root) - fold) % NUM_FOLDS, "train")


def read_zoo(folder: Path, most: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return corpus and layer table of a folder's repos."""
    rows, layers = [], []
    names = sorted(path.parent.name for path in folder.glob("*/model.safetensors"))
    for name in names[:: max(1, -(-len(names) // most))]:
        card = read_card(folder / name)
        plan, measured = plan_checkpoint(Checkpoint.open(folder / name))
        records = [layer_to_record(a, m) for a, m in zip(plan.layers, measured, strict=True)]
        tokens = ModelTokens.open_path(folder / name, TokenLayout()).layers
        root = find_root(folder, name)
        rows.append(
            {
                "hub_id": name,
                "repo_id": name,
                "family": name.partition("-")[0],
                "lineage_root": root,
                "num_params": sum(layer.num_values for layer in tokens),
                "num_values": sum(layer.num_values for layer in tokens),
                "card": json.dumps(card, default=str),
                "shard_sha256": str(folder / name),
                "layers": [
                    {"name": each.name, "rows": each.rows, "cols": each.cols} for each in tokens
                ],
            }
        )
        layers.append({"hub_id": name, "layers": records})
    schema = {"hub_id": pl.String(), "layers": pl.List(LAYER_STRUCT)}
    return pl.DataFrame(rows), pl.DataFrame(layers, schema=schema)


def embed(backbone: Backbone, corpus: pl.DataFrame, window: int) -> pl.DataFrame:
    """Return a vector per model."""
    models = [ModelTokens.open_path(path, layout_of(backbone)) for path in corpus["shard_sha256"]]
    vectors = [each.embedding.tolist() for each in embed_tokens(backbone, models, window=window)]
    return corpus.select("hub_id").with_columns(embedding=pl.Series(vectors))


def predict(
    corpus: pl.DataFrame,
    layers: pl.DataFrame,
    embeddings: Mapping[str, pl.DataFrame],
    probes: tuple[str, ...],
) -> pl.DataFrame:
    """Return the held-out predictions of every lineage: target, features, hub_id, truth, .."""
    config = EvaluationConfig(
        targets=("accuracy", "generalization_gap"), probes=probes, held_out=(), num_bootstrap=10
    )
    found = []
    for fold in range(NUM_FOLDS):
        split = pl.col("lineage_root").map_elements(
            lambda root, fold=fold: split_of(root, fold), return_dtype=pl.String
        )
        done = evaluate_properties(
            corpus.with_columns(split=split),
            embeddings,
            layers,
            recipe="zoo",
            config=config,
        )
        found.append(done.predictions.filter(pl.col("slice") == "all"))
    return pl.concat(found)


def print_scores(predictions: pl.DataFrame, corpus: pl.DataFrame, target: str) -> None:
    """Print the table of one target."""
    part = predictions.filter(pl.col("target") == target).join(
        corpus.select("hub_id", "lineage_root"), on="hub_id"
    )
    wide = part.pivot(on="features", index=["hub_id", "lineage_root", "truth"], values="prediction")
    truth = wide["truth"].to_numpy()
    counts = draw_lineage_counts(wide["lineage_root"].to_list(), 1_000, np.random.default_rng(0))

    def measure(name: str, metric: str) -> tuple[float, np.ndarray]:
        point, resample = PREDICTION_METRICS[metric]
        values = wide[name].to_numpy()
        return point(truth, values), resample(truth, values, counts)

    def cell(value: float, drawn: np.ndarray) -> str:
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    print(f"| {target}, {wide.height} models | R2 | Kendall's tau | R2 minus that of s(W) |")
    print("|---|---|---|---|")
    for name in (name for name in SHOWN if name in wide.columns):
        against = "statistics@boosted" if "@" in name else "statistics"
        own, other = measure(name, "r2"), measure(against, "r2")
        scores = cell(*own), cell(*measure(name, "kendall_tau"))
        difference = cell(own[0] - other[0], own[1] - other[1]) if name != against else ""
        print(f"| {feature_label(name)} | {' | '.join(scores)} | {difference} |")
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("repos", type=Path)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--max", type=int, default=1_000)
    parser.add_argument("--boosted", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    corpus, layers = read_zoo(options.repos, options.max)
    trained = Backbone.from_pretrained(options.backbone)
    window = trained.config.window_size or 64
    vectors = {
        "backbone": embed(trained, corpus, window),
        "untrained": embed(untrained(trained.config, 0), corpus, window),
    }
    probes = ("ridge", "boosted") if options.boosted else ("ridge",)
    predictions = predict(corpus, layers, vectors, probes)
    print(f"{len(corpus)} models, {corpus['lineage_root'].n_unique()} lineages\n")
    for target in ("accuracy", "generalization_gap"):
        print_scores(predictions, corpus, target)
    print(f"{time.process_time() - started:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
