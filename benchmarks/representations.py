"""What does a trained backbone say of a zoo that it never saw, beside every control?

Reads the repos of a folder (`<name>/{model.safetensors, README.md}`), embeds them with a trained
and an untrained backbone, splits them by lineage (a hash of the root: 60 % train, 20 % val, 20 %
test) and prints, as Markdown, R2 and Kendall's tau on the test models with intervals over lineages.
Ridge and boosted trees; targets accuracy and generalisation gap.

    python benchmarks/representations.py REPOS --backbone DIR [--max N]
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
import yaml

from ws_pipeline.backbone.embed import embed_tokens
from ws_pipeline.backbone.model import Backbone, untrained
from ws_pipeline.backbone.sweep import layout_of
from ws_pipeline.evaluation.config import EvaluationConfig
from ws_pipeline.evaluation.labels import feature_label
from ws_pipeline.evaluation.properties import evaluate_properties
from ws_pipeline.tokens.layer_matrices import read_matrices
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.windows import ModelTokens
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.layer_matrix import LayerMatrix
from ws_pipeline.weights.packing import plan_checkpoint
from ws_pipeline.weights.records import LAYER_STRUCT, layer_to_record

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


def split_of(root: str) -> str:
    """Return the split of a lineage: by a hash, so that more models move none."""
    share = int(hashlib.sha256(root.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.6 else "val" if share < 0.8 else "test"


def read_zoo(folder: Path, most: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return corpus and layer table of a folder's repos."""
    rows, layers = [], []
    names = sorted(path.parent.name for path in folder.glob("*/model.safetensors"))
    for name in names[:: max(1, -(-len(names) // most))]:
        card = read_card(folder / name)
        plan, measured = plan_checkpoint(Checkpoint.open(folder / name))
        records = [layer_to_record(a, m) for a, m in zip(plan.layers, measured, strict=True)]
        tokens = ModelTokens.open_path(folder / name, TokenLayout()).layers
        base = str(card.get("base_model") or name).rpartition("/")[2]
        root = base.partition("-epoch")[0]
        rows.append(
            {
                "hub_id": name,
                "repo_id": name,
                "family": name.partition("-")[0],
                "split": split_of(root),
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


def read_layers(row: Mapping[str, Any]) -> Iterator[LayerMatrix]:
    """Yield the layers of a repo."""
    model = ModelTokens.open_path(row["shard_sha256"], TokenLayout())
    return read_matrices(model.values, model.layers)


def embed(backbone: Backbone, corpus: pl.DataFrame, window: int) -> pl.DataFrame:
    """Return a vector per model."""
    models = [ModelTokens.open_path(path, layout_of(backbone)) for path in corpus["shard_sha256"]]
    vectors = [each.embedding.tolist() for each in embed_tokens(backbone, models, window=window)]
    return corpus.select("hub_id").with_columns(embedding=pl.Series(vectors))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("repos", type=Path)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--max", type=int, default=1_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    corpus, layers = read_zoo(options.repos, options.max)
    trained = Backbone.from_pretrained(options.backbone)
    window = trained.config.window_size or 64
    found = evaluate_properties(
        corpus,
        {
            "backbone": embed(trained, corpus, window),
            "untrained": embed(untrained(trained.config, 0), corpus, window),
        },
        layers,
        recipe="zoo",
        config=EvaluationConfig(
            targets=("accuracy", "generalization_gap"), probes=("ridge", "boosted"), held_out=()
        ),
        read_layers=read_layers,
    ).results.filter(pl.col("slice") == "all")
    counts = {name: int((corpus["split"] == name).sum()) for name in ("train", "val", "test")}
    print(f"{len(corpus)} models, {corpus['lineage_root'].n_unique()} lineages, {counts}\n")
    for (target,), part in found.group_by("target", maintain_order=True):
        print(f"| {target} | R2 | Kendall's tau | R2 minus that of s(W) |\n|---|---|---|---|")
        cells = {
            (row["features"], row["metric"]): "-"
            if row["value"] is None
            else f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            for row in part.iter_rows(named=True)
        }
        for name in SHOWN:
            against = "statistics@boosted" if "@" in name else "statistics"
            difference = cells.get((f"{name}|{against}", "r2_difference"), "")
            scores = " | ".join(cells[name, metric] for metric in ("r2", "kendall_tau"))
            print(f"| {feature_label(name)} | {scores} | {difference} |")
        print()
    print(f"{time.process_time() - started:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
