"""New weights from anchors against every baseline: another data set, width, depth, modality.

    python benchmarks/generation.py HOME --out FILE.parquet [--case N]... [--data FOLDER]

HOME is that of a finished `ws-pipeline demo` and `ws-pipeline train --recipe generation`. The
anchors of Fashion-MNIST are trained here, twelve CNNs of 2,464 parameters, where FOLDER has the
data. CPU-seconds stand beside each case.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from ws_pipeline.backbone.model import Backbone
from ws_pipeline.defs.runs import find_model
from ws_pipeline.evaluation.generation import evaluate_generation
from ws_pipeline.evaluation.generation_config import GenerationCase, GenerationConfig
from ws_pipeline.evaluation.results import concat_results
from ws_pipeline.zoo.catalog import PUBLISHED_CNN
from ws_pipeline.zoo.config import FactorGrid, GridConfig, ZooConfig
from ws_pipeline.zoo.train import train_zoo

FASHION = ZooConfig(
    name="fashion-anchors",
    populations=(
        GridConfig(
            name="cnn-fashion",
            architecture="cnn",
            dataset="fashion-mnist",
            sizes={**PUBLISHED_CNN, "activation": "relu"},
            factors=FactorGrid(values={"learning_rate": (1e-3, 3e-3), "weight_decay": (0.0, 1e-2)}),
            seeds=(0, 1, 2),
            num_epochs=5,
            rows_per_epoch=2_048,
            eval_rows=1_000,
        ),
    ),
)

WIDER = {"channels": (12, 18, 24), "hidden_size": 32}
SHORT = GenerationConfig(
    steps=(0, 10, 50, 100), learning_rates=(3e-3,), num_candidates=10, num_rounds=2
)

STUDIES: tuple[tuple[GenerationCase, GenerationConfig], ...] = (
    (GenerationCase(population="cnn-digits", dataset="digits"), GenerationConfig()),
    (GenerationCase(population="cnn-digits", dataset="digits-inverted"), GenerationConfig()),
    (
        GenerationCase(zoo="fashion-anchors", population="cnn-fashion", dataset="fashion-mnist"),
        GenerationConfig(learning_rates=(3e-3, 1e-2), eval_rows=500),
    ),
    (
        GenerationCase(population="gpt2-text", dataset="text"),
        replace(SHORT, batch_size=16, num_candidates=6),
    ),
    (GenerationCase(population="cnn-digits", dataset="digits", sizes=WIDER), SHORT),
    (
        GenerationCase(population="vit-digits", dataset="digits", sizes={"num_layers": 3}),
        replace(SHORT, num_candidates=6),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", type=int, action="append", help="number, from 0; all if none")
    parser.add_argument("--data", type=Path, help="where fashion-mnist lies")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backbone = Backbone.from_pretrained(find_model(arguments.home, "generation"))
    zoos = arguments.home / "zoos"
    frames: list[pl.DataFrame] = []
    for number, (case, config) in enumerate(STUDIES):
        needs_data = case.zoo == FASHION.name
        if (arguments.case and number not in arguments.case) or (needs_data and not arguments.data):
            continue
        if needs_data:
            train_zoo(FASHION, zoos / FASHION.name, data=arguments.data, num_workers=1)
        start = time.process_time()
        single = replace(config, cases=(case,))
        frames.append(
            evaluate_generation(
                backbone, zoos, recipe="generation", config=single, data=arguments.data
            )
        )
        print(f"{case.name}: {time.process_time() - start:.0f} CPU-seconds")
        print_case(frames[-1])
    concat_results(frames).write_parquet(arguments.out)


def print_case(results: pl.DataFrame) -> None:
    """Print methods down, test accuracy by step and the cost and memory across."""
    plain = results.filter(
        ~pl.col("metric").str.ends_with("_difference") & (pl.col("metric") != "loss")
    )
    half = (pl.col("high") - pl.col("low")) / 2
    column = pl.when(pl.col("metric") == "accuracy").then("slice").otherwise("metric")
    shown = plain.with_columns(
        column=column,
        text=pl.format("{} ± {}", pl.col("value").round(3), half.round(3)),
    ).pivot(on="column", index="features", values="text")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=250):
        print(shown)


if __name__ == "__main__":
    main()
