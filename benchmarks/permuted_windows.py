"""What serving windows of permuted models costs on a real corpus, beside a job's training step.

    python benchmarks/permuted_windows.py --job HOME/runs/tiny/DIGEST/job.json [--steps 100]

Reads the steps of the job's corpus with windows as they are stored, permuted, and both, after as
many steps that fill the caches. CPU milliseconds of one step on one thread. The training step is
the job's own loop on the same windows. Prints a Markdown table.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from accelerate import Accelerator

from ws_pipeline.backbone.batches import to_windows
from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.mixture import weigh_models
from ws_pipeline.tokens.windows import UnitOrder, WindowDataset

CASES: dict[str, tuple[UnitOrder, ...]] = {
    "as stored": ("stored",),
    "permuted": ("permuted",),
    "both": ("stored", "permuted"),
}
NUM_TRAINING_STEPS = 10


def open_dataset(job: TrainJob, orders: tuple[UnitOrder, ...], num_steps: int) -> WindowDataset:
    store = Store.open(job.store_root)
    rows = store.snapshots.scan(job.snapshot).filter(pl.col("split") == "train").collect()
    config = job.training
    return WindowDataset(
        store,
        rows.with_columns(weight=weigh_models(rows, job.mixture)),
        layout=job.layout,
        window_size=config.window_size,
        batch_size=config.batch_size,
        num_steps=num_steps,
        seed=config.seed,
        unit_orders=orders,
    )


def measure_serving(job: TrainJob, orders: tuple[UnitOrder, ...], num_steps: int) -> float:
    dataset = open_dataset(job, orders, 2 * num_steps)
    out = np.zeros(dataset.max_batch_bytes, dtype=np.uint8)
    for step in range(num_steps):
        dataset.read(step, out)
    began = time.process_time()
    for step in range(num_steps, 2 * num_steps):
        dataset.read(step, out)
    return (time.process_time() - began) / num_steps


def measure_training(job: TrainJob) -> float:
    with tempfile.TemporaryDirectory() as root:
        job = replace(job, out_dir=root, views=replace(job.views, permutation=False))
        dataset = open_dataset(job, ("stored",), NUM_TRAINING_STEPS + 1)
        loop = TrainingLoop(
            job,
            accelerator=Accelerator(cpu=True, mixed_precision="no"),
            train=dataset,
            val=[],
            checkpoints=CheckpointFolder(out_dir=Path(root), job_digest=job.digest()),
        )
        loop.model.train()
        loop.train_on(to_windows(dataset.read(0), loop.device))
        began = time.process_time()
        for step in range(1, NUM_TRAINING_STEPS + 1):
            loop.train_on(to_windows(dataset.read(step), loop.device))
        return (time.process_time() - began) / NUM_TRAINING_STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    job = TrainJob.read(arguments.job)
    step = measure_training(job)
    lines = ["| windows | ms a step | of a training step |", "|---|---|---|"]
    for name, orders in CASES.items():
        seconds = measure_serving(job, orders, arguments.steps)
        lines.append(f"| {name} | {seconds * 1e3:.2f} | {seconds / step:.1%} |")
    print(
        f"{job.training.batch_size} windows of {job.training.window_size} tokens; a training step"
    )
    print(f"of {job.recipe_name} takes {step * 1e3:.0f} ms of CPU time\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
