"""What a GPU makes of the backbone: a preset's speed, and whether shortcuts change the numbers.

    python benchmarks/gpu.py [--device cuda] [--preset hub-small] [--steps 200] [--out FOLDER]

Trains on synthetic windows of the preset's true shape in bf16 with torch.compile for some hundred
steps, with negatives and views as the preset has them: tokens per second, peak memory, model FLOPs
against a measured bf16 product, and a Chrome trace of two steps. Then, on a small network: compiled
against eager, and FSDP2 against DDP on two processes where there are two GPUs (gloo on a CPU). Exit
code 1 if numbers differ. `--device cpu --preset tiny --steps 2` is the same at a size for tests.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.backbone.model import num_parameters
from ws_pipeline.backbone.presets import PRESETS

NUM_WARMUPS = 3
NUM_CHECK_STEPS = 5
TOLERANCE = 0.02
"""Relative, of losses over `NUM_CHECK_STEPS` steps in bf16, whose mantissa has 8 bits."""


class NoBatches:
    """Nothing is read: windows are made here."""

    def __len__(self) -> int:
        return 0


def make_windows(job: TrainJob, device: torch.device, rank: int = 0) -> Windows:
    """White weights without padding; other processes hold other ones."""
    batch, window = job.training.batch_size // job.num_processes, job.training.window_size
    shape = (batch, window, job.backbone.token_size)
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(rank))
    windows = Windows(
        tokens=tokens,
        mask=torch.ones(shape, dtype=torch.bool),
        positions=torch.arange(window)[None, :, None].repeat(batch, 1, 3),
        scale=torch.zeros(batch, window, 2),
    )
    return Windows(*(each.to(device) for each in windows))


def make_job(preset_name: str, out_dir: str, *, num_steps: int, **training: Any) -> TrainJob:
    preset = PRESETS[preset_name]()
    values = {"compile": False, "sharding": "none", "num_steps": num_steps, **training}
    processes = values.pop("num_processes", 1)
    return TrainJob(
        recipe_name="benchmark",
        recipe_digest="0" * 64,
        store_root="",
        snapshot="",
        backbone=preset.backbone,
        loss=preset.loss,
        views=dataclasses.replace(preset.views, noise=0.0, permutation=False),
        training=dataclasses.replace(preset.training, **values),
        layout=preset.layout,
        out_dir=out_dir,
        num_processes=processes,
    )


def make_loop(job: TrainJob, device: str) -> tuple[TrainingLoop, Windows]:
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
    loop = TrainingLoop(
        job,
        accelerator=accelerator,
        train=NoBatches(),
        val=[],
        checkpoints=CheckpointFolder(out_dir=Path(job.out_dir), job_digest=job.digest()),
    )
    loop.model.train()
    return loop, make_windows(job, loop.device, accelerator.process_index)


def train_steps(job: TrainJob, device: str) -> list[float]:
    """Total losses of some steps on the same windows, the mean over processes."""
    loop, windows = make_loop(job, device)
    for _ in range(NUM_CHECK_STEPS):
        loop.train_on(windows)
    rows = loop.accelerator.reduce(torch.stack(loop.progress.recent), reduction="mean")
    return [float(value) for value in rows[:, 0]]


def measure_speed(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train the preset and say how fast; the trace is saved beside."""
    with tempfile.TemporaryDirectory() as root:
        job = make_job(arguments.preset, root, num_steps=10**6, compile=arguments.compile)
        loop, windows = make_loop(job, arguments.device)
        for _ in range(NUM_WARMUPS):
            loop.train_on(windows)
        synchronize(arguments.device)
        began = time.perf_counter()
        for _ in range(arguments.steps):
            loop.train_on(windows)
        synchronize(arguments.device)
        seconds = time.perf_counter() - began
        with torch.profiler.profile() as profiler:
            loop.train_on(windows)
            loop.train_on(windows)
            synchronize(arguments.device)
        profiler.export_chrome_trace(str(folder / "trace.json"))
    tokens = arguments.steps * job.training.batch_size * job.training.window_size / seconds
    flops = tokens * loop.throughput.flops_per_token
    return {
        "preset": arguments.preset,
        "device": device_name(arguments.device),
        "torch": torch.__version__,
        "precision": loop.precision,
        "compile": job.training.compile,
        "num_params": num_parameters(loop.backbone),
        "num_views": loop.num_views,
        "steps": arguments.steps,
        "tokens_per_second": tokens,
        "tflops_per_second": flops / 1e12,
        "matmul_tflops_per_second": loop.throughput.matmul_rate / 1e12,
        "model_flops_utilization": flops / loop.throughput.matmul_rate,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if arguments.device == "cuda" else None,
    }


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def compare_compiled(device: str) -> dict[str, Any]:
    """Losses of eager and compiled steps of the tiny preset."""
    found = {}
    for name, compiled in (("eager", False), ("compiled", True)):
        with tempfile.TemporaryDirectory() as root:
            found[name] = train_steps(
                make_job("tiny", root, num_steps=20, compile=compiled), device
            )
    return found | {"equal": close(found["eager"], found["compiled"])}


def compare_sharded(device: str) -> dict[str, Any]:
    """Losses of two processes with whole and with sharded weights; each run is a torchrun."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        return {"skipped": f"needs 2 GPUs, there are {torch.cuda.device_count()}"}
    environment = dict(os.environ)
    if device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    found: dict[str, Any] = {}
    for sharding in ("none", "fsdp2"):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
        rank = [__file__, "--device", device, "--rank-of", sharding]
        done = subprocess.run(
            [*command, *meet, *rank], env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        found[sharding] = json.loads(done.stdout.splitlines()[-1])
    return found | {"equal": close(found["none"], found["fsdp2"])}


def run_rank(sharding: str, device: str) -> None:
    """Be one of two processes; the main one prints its losses."""
    with tempfile.TemporaryDirectory() as root:
        job = make_job("tiny", root, num_steps=20, sharding=sharding, num_processes=2)
        losses = train_steps(job, device)
    if os.environ["RANK"] == "0":
        print(json.dumps(losses))


def close(first: list[float], second: list[float]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(abs(one - two) <= TOLERANCE * abs(one) for one, two in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--preset", default="hub-small", choices=list(PRESETS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"))
    parser.add_argument("--rank-of", choices=["none", "fsdp2"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        run_rank(arguments.rank_of, arguments.device)
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {
        "speed": measure_speed(arguments, arguments.out),
        "compiled": compare_compiled(arguments.device) if arguments.compile else {"skipped": "off"},
        "sharded": compare_sharded(arguments.device),
    }
    text = json.dumps(found, indent=2)
    (arguments.out / "results.json").write_text(text)
    print(text)
    return 0 if all(found[name].get("equal", True) for name in ("compiled", "sharded")) else 1


if __name__ == "__main__":
    sys.exit(main())
