"""Models per minute: many at once, one after the other, and one process per model.

    python benchmarks/zoo.py [--data FOLDER] [--models mlp cnn vit] [--num-models 64] [--repeats 2]
        [--out FILE.md]

The same models with the same result, in CPU-seconds of one core, best of the repeats. Three ways:
a stack of all of them (`train_stack`, what `zoo train` does); the same code with one model at a
time; a plain torch loop over one module, as one writes it by hand, with the same batches, optimiser
and evaluations. One process per model is the last of these in a fresh interpreter, its imports
included, measured for one model.

The roofline of each: arithmetic of the training steps alone (torch's own count) over the rate of
one large matrix product, and over the rate of batched products of the model's own size; bytes of
weights, gradients, Adam's moments and activations over the rate of a copy. What is missed beyond
that is the cost of calling operations, which a stack divides by its models and cannot take away.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ws_pipeline.zoo.architectures import build_module, run_module
from ws_pipeline.zoo.batches import make_batches
from ws_pipeline.zoo.catalog import PUBLISHED_CNN
from ws_pipeline.zoo.config import FactorGrid, GridConfig
from ws_pipeline.zoo.datasets.catalog import load_dataset
from ws_pipeline.zoo.grid import ModelPlan, plan_population
from ws_pipeline.zoo.training import initial_state, train_stack

NUM_ALONE = 3
BATCH_SIZE = 32
RATES = (1e-3, 3e-3)


def grid_of(name: str, num_models: int) -> GridConfig:
    """Return the population of a benchmark: one epoch, Adam, two learning rates."""
    common: dict[str, Any] = {
        "name": name,
        "num_epochs": 1,
        "batch_size": BATCH_SIZE,
        "factors": FactorGrid(values={"learning_rate": RATES, "optimizer": ("adam",)}),
        "seeds": tuple(range(num_models // len(RATES))),
    }
    if name == "mlp":
        return GridConfig(architecture="mlp", dataset="digits", **common)
    if name == "cnn":
        sizes = {**PUBLISHED_CNN, "activation": "relu"}
        few = {"rows_per_epoch": 1_024, "eval_rows": 500}
        return GridConfig(architecture="cnn", dataset="fashion-mnist", sizes=sizes, **few, **common)
    if name == "cnn-8x8":
        return GridConfig(architecture="cnn", dataset="digits", **common)
    return GridConfig(architecture="vit", dataset="digits", **common)


def train_plain(plan: ModelPlan, dataset: Any) -> nn.Module:
    """Train one module as by hand, on the batches that its plan gives."""
    module = build_module(plan.architecture, plan.sizes, dataset, seed=0)
    module.load_state_dict(initial_state(plan, dataset, None), strict=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=float(plan.factors["learning_rate"]))
    batches = make_batches(dataset, [plan], torch.float32)
    for epoch in range(1, plan.num_epochs + 1):
        module.train()
        for batch in batches.epoch(epoch):
            optimizer.zero_grad()
            logits = run_module(plan.architecture, module, batch.inputs[0])
            functional.cross_entropy(logits, batch.labels[0]).backward()
            optimizer.step()
        module.eval()
        with torch.no_grad():
            for part in (batches.held_out("val"), batches.held_out("test"), batches.train_sample()):
                for batch in part:
                    run_module(plan.architecture, module, batch.inputs[0])
    return module


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the least CPU-seconds of this process over the repeats."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def measure_process(name: str, data: str) -> float:
    """Return the CPU-seconds of a fresh interpreter that trains one model by hand."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, __file__, "--one", name, "--data", data], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def count_work(plan: ModelPlan, dataset: Any) -> tuple[float, float]:
    """Count FLOPs and bytes of one training step of one model."""
    module = build_module(plan.architecture, plan.sizes, dataset, seed=0)
    images = torch.zeros(BATCH_SIZE, *dataset.image_shape)
    sizes: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *args: sizes.append(args[2].numel()))
        for layer in module.modules()
        if not list(layer.children()) and not isinstance(layer, nn.Identity)
    ]
    with FlopCounterMode(display=False) as counter:
        logits = run_module(plan.architecture, module, images)
        logits.sum().backward()
    for hook in hooks:
        hook.remove()
    num_params = sum(parameter.numel() for parameter in module.parameters())
    # Activations are written, read, and the same backwards; Adam reads and writes 7 per weight.
    return float(counter.get_total_flops()), 4.0 * (4 * sum(sizes) + 9 * num_params)


def measure_rates(repeats: int) -> dict[str, float]:
    """Measure GFLOP/s of a large product and of batched small ones, and GB/s of a copy."""
    side = 1_024
    left, right = torch.rand(side, side), torch.rand(side, side)
    large = cpu_seconds(lambda: left @ right, 5 * repeats)
    rates = {"large": 2 * side**3 / large / 1e9}
    for name, inner, outer in (
        ("mlp", 64, 32),
        ("cnn", 25, 8),
        ("cnn-8x8", 72, 12),
        ("vit", 32, 32),
    ):
        rows = BATCH_SIZE * {"mlp": 1, "cnn": 576, "cnn-8x8": 64, "vit": 17}[name]
        inputs, weights = torch.rand(16, rows, inner), torch.rand(16, inner, outer)
        seconds = cpu_seconds(lambda one=inputs, two=weights: torch.bmm(one, two), 5 * repeats)
        rates[name] = 2 * 16 * rows * inner * outer / seconds / 1e9
    source, target = torch.rand(8 * 1024**2), torch.empty(8 * 1024**2)
    rates["copy"] = (
        2 * 4 * source.numel() / cpu_seconds(lambda: target.copy_(source), repeats) / 1e9
    )
    return rates


def run(name: str, data: str, num_models: int, repeats: int, rates: dict[str, float]) -> list[str]:
    """Measure one kind of models; a row of each table."""
    grid = grid_of(name, num_models)
    dataset = load_dataset(grid.dataset, Path(data))
    plans = plan_population(grid, None)
    train_plain(plans[0], dataset)  # warm
    stacked = cpu_seconds(lambda: train_stack(plans, dataset), repeats) / num_models
    alone = plans[:: num_models // NUM_ALONE][:NUM_ALONE]
    single = cpu_seconds(lambda: [train_stack([p], dataset) for p in alone], repeats) / NUM_ALONE
    plain = cpu_seconds(lambda: [train_plain(p, dataset) for p in alone], repeats) / NUM_ALONE
    fresh = measure_process(name, data)
    flops, num_bytes = count_work(plans[0], dataset)
    num_steps = make_batches(dataset, plans[:1], torch.float32).num_steps
    arithmetic = flops * num_steps / rates["large"] / 1e9
    batched = flops * num_steps / rates[name] / 1e9
    memory = num_bytes * num_steps / rates["copy"] / 1e9
    speeds = [f"{60 / seconds:,.0f}" for seconds in (stacked, single, plain, fresh)]
    ratios = [f"{seconds / stacked:.1f}x" for seconds in (single, plain, fresh)]
    bound = max(arithmetic, batched) + memory
    bounds = [f"{1e3 * s:.2f}" for s in (stacked, plain, arithmetic, batched, memory)]
    return [
        f"| {name} | {' | '.join(speeds)} | {' | '.join(ratios)} |",
        f"| {name} | {flops / 1e6:.2f} | {' | '.join(bounds)} | {plain / bound:.1f}x |",
    ]


def main() -> None:
    """Print the tables, and write them where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("WS_DATA", "data"))
    parser.add_argument("--models", nargs="*", default=["mlp", "cnn-8x8", "cnn", "vit"])
    parser.add_argument("--num-models", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.one:
        grid = grid_of(chosen.one, len(RATES))
        train_plain(plan_population(grid, None)[0], load_dataset(grid.dataset, Path(chosen.data)))
        return
    rates = measure_rates(chosen.repeats)
    rows = []
    for name in chosen.models:
        rows.append(run(name, chosen.data, chosen.num_models, chosen.repeats, rates))
        print("\n".join(rows[-1]), flush=True)
    shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    machine = f"{platform.processor() or platform.machine()}, one core, torch {torch.__version__}"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}.",
        f"{chosen.num_models} models, batches of {BATCH_SIZE}, best of {chosen.repeats}.",
        "",
        "Models per CPU-minute, and how many times as long the others take.",
        "",
        "| | stack | one by one | plain loop | one process | one by one | plain | process |",
        "|---|---|---|---|---|---|---|---|",
        *(row[0] for row in rows),
        "",
        f"Rates: {shown} (GFLOP/s of products, GB/s of the copy). CPU-milliseconds per model:",
        "",
        "| | MFLOP a step | stack | plain | arithmetic | batched | memory | ratio's bound |",
        "|---|---|---|---|---|---|---|---|",
        *(row[1] for row in rows),
    ]
    print("\n".join(lines))
    if chosen.out:
        chosen.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
