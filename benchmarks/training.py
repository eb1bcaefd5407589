"""Training speed beside torch's own encoder, in one run: tokens per second, FLOPs, memory.

    python benchmarks/training.py [--device cuda] [--preset sane-cnn] [--layers 2] [--steps 4]
        [--batch 8] [--window 64] [--compile] [--profile TRACE.json] [--out FILE.md]

Ours: the training loop's step (views, forward, loss, backward, clipping, fused AdamW) in the best
precision of the device. Theirs: `nn.TransformerEncoder` of the same shape, twice, between the same
linear ends, in fp32, with the same loss and torch's AdamW. `matmul` is the rate of a large product
in our precision, which utilisation is measured against, and the roofline what ratio it allows at
best. On a CPU a case runs in a process of its
own, so that peaks of memory do not mix, and tokens are counted per CPU-second: other processes on
the machine then cost little. `--layers` cuts both to a depth that a machine can bear; the ratio
depends on it little, since blocks are alike.
"""

import argparse
import dataclasses
import functools
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from ws_pipeline.backbone.checkpoints import CheckpointFolder
from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.backbone.loop import TrainingLoop
from ws_pipeline.backbone.loss import Windows
from ws_pipeline.backbone.model import num_parameters
from ws_pipeline.backbone.presets import PRESETS
from ws_pipeline.backbone.throughput import flops_per_token, measure_matmul_rate

CASES = ("torch fp32", "ours fp32", "ours best")
NUM_WARMUPS = 1


class NoBatches:
    """Nothing is read while the clock runs: windows are made here."""

    def __len__(self) -> int:
        return 0


def make_windows(job: TrainJob, device: torch.device) -> Windows:
    """White weights without padding."""
    batch, window = job.training.batch_size, job.training.window_size
    shape = (batch, window, job.backbone.token_size)
    windows = Windows(
        tokens=torch.randn(shape, generator=torch.Generator().manual_seed(0)),
        mask=torch.ones(shape, dtype=torch.bool),
        positions=torch.arange(window)[None, :, None].repeat(batch, 1, 3),
        scale=torch.zeros(batch, window, 2),
    )
    return Windows(*(each.to(device) for each in windows))


class TorchEncoder(nn.Module):
    """The same network of torch's own parts: two stacks between linear ends."""

    def __init__(self, job: TrainJob) -> None:
        super().__init__()
        config = job.backbone

        def stack() -> nn.Module:
            layer = nn.TransformerEncoderLayer(
                config.width,
                config.num_heads,
                4 * config.width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
                bias=False,
            )
            return nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)

        self.embed = nn.Linear(config.token_size, config.width, bias=False)
        self.encoder, self.decoder = stack(), stack()
        self.to_latent = nn.Linear(config.width, config.latent_size, bias=False)
        self.from_latent = nn.Linear(config.latent_size, config.width, bias=False)
        self.to_token = nn.Linear(config.width, config.token_size, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, window, token_size)`` for the same."""
        latents = self.to_latent(self.encoder(self.embed(tokens)))
        return self.to_token(self.decoder(self.from_latent(latents)))


def make_job(arguments: argparse.Namespace, out_dir: str, *, precision: str) -> TrainJob:
    preset = PRESETS[arguments.preset]()
    backbone = preset.backbone
    if arguments.layers:
        backbone = dataclasses.replace(backbone, num_layers=arguments.layers)
    training = dataclasses.replace(
        preset.training,
        batch_size=arguments.batch or preset.training.batch_size,
        window_size=arguments.window or preset.training.window_size,
        precision=precision,
        compile=arguments.compile and precision != "fp32",
        sharding="none",
        num_steps=1_000_000,
        log_every=1_000_000,
        evaluate_every=1_000_000,
        checkpoint_every=1_000_000,
    )
    return TrainJob(
        recipe_name="benchmark",
        recipe_digest="0" * 64,
        store_root="",
        snapshot="",
        backbone=backbone,
        loss=dataclasses.replace(preset.loss, contrastive_weight=0.0),
        views=dataclasses.replace(preset.views, mixtures=0.0, flip_signs=False),
        training=training,
        layout=preset.layout,
        out_dir=out_dir,
    )


def build_torch_step(job: TrainJob, device: torch.device) -> Callable[[], None]:
    model = TorchEncoder(job).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=3e-9)
    tokens = make_windows(job, device).tokens

    def step() -> None:
        functional.mse_loss(model(tokens), tokens).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def build_our_loop(job: TrainJob, *, cpu: bool) -> TrainingLoop:
    return TrainingLoop(
        job,
        accelerator=Accelerator(cpu=cpu, mixed_precision="no"),
        train=NoBatches(),
        val=[],
        checkpoints=CheckpointFolder(out_dir=Path(job.out_dir), job_digest="benchmark"),
    )


def measure(step: Callable[[], None], num_steps: int, device: torch.device) -> dict[str, float]:
    for _ in range(NUM_WARMUPS):
        step()
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(num_steps):
        step()
    synchronize(device)
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return {name: value / num_steps for name, value in seconds.items()}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_case(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in this process."""
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as out_dir:
        job = make_job(arguments, out_dir, precision="fp32" if "fp32" in case else "auto")
        if case.startswith("torch"):
            precision, step = "fp32", build_torch_step(job, device)
            num_params = num_parameters(TorchEncoder(job))
        else:
            loop = build_our_loop(job, cpu=device.type == "cpu")
            loop.model.train()
            precision, num_params = loop.precision, num_parameters(loop.backbone)
            step = functools.partial(loop.train_on, make_windows(job, device))
        times = measure(step, arguments.steps, device)
        if arguments.profile and case == "ours best":
            save_profile(step, arguments.profile)
    tokens = job.training.batch_size * job.training.window_size
    clock = times["seconds" if device.type == "cuda" else "cpu_seconds"]
    flops = tokens * flops_per_token(job.backbone, job.training.window_size) / clock
    rate = matmul_rate(device, precision)
    return {
        "case": case,
        "precision": precision,
        "million_params": num_params / 1e6,
        "tokens_per_second": tokens / clock,
        "gflops": flops / 1e9,
        "matmul_gflops": rate / 1e9,
        "utilization": flops / rate,
        "peak_gb": peak_bytes(device) / 1e9,
    }


def matmul_rate(device: torch.device, precision: Any) -> float:
    """FLOP per second of the device, or per CPU-second."""
    if device.type == "cuda":
        return measure_matmul_rate(device, precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size, best = 2_048, float("inf")
    left, right = (torch.ones((size, size), dtype=dtype) for _ in range(2))
    for _ in range(4):
        began = time.process_time()
        left @ right
        best = min(best, time.process_time() - began)
    return 2.0 * size**3 / best


def save_profile(step: Callable[[], None], path: str) -> None:
    """Save a Chrome trace of two steps."""
    with torch.profiler.profile() as profiler:
        step()
        step()
    profiler.export_chrome_trace(path)
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=key, row_limit=15), file=sys.stderr)


def run_apart(case: str) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--case", case]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def render(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """The table, the ratios that are asked for, and what it ran on."""
    per = "second" if arguments.device == "cuda" else "CPU-second"
    layers = arguments.layers or "all"
    where = f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
    cells = [
        (
            f"{row['case']} | {row['precision']} | {row['million_params']:.0f}",
            f"{row['tokens_per_second']:,.0f} | {row['gflops']:.0f} | {row['matmul_gflops']:.0f}",
            f"{row['utilization']:.0%} | {row['peak_gb']:.2f}",
        )
        for row in rows
    ]
    speed, memory = (rows[-1][name] / rows[0][name] for name in ("tokens_per_second", "peak_gb"))
    lines = [
        f"{arguments.preset}, {layers} + {layers} layers, {where}",
        "",
        f"| case | precision | M params | tokens per {per} | GFLOP/s | matmul | utilisation | GB |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in cells),
        "",
        f"ours / torch fp32: {speed:.2f}x tokens, {memory:.2f}x peak memory",
        show_roofline(rows),
    ]
    return "\n".join(lines)


def show_roofline(rows: list[dict[str, Any]]) -> str:
    """Say what ratio this machine allows: a step that is matrix products alone, at their rate."""
    theirs, ours = rows[0], rows[-1]
    products = ours["matmul_gflops"] / theirs["matmul_gflops"]
    ceiling = ours["matmul_gflops"] / theirs["gflops"]
    return (
        f"roofline: {ours['precision']} products are {products:.2f}x as fast as fp32 ones here, so "
        f"that at 100 % utilisation ours would be {ceiling:.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--preset", default="sane-cnn", choices=list(PRESETS))
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=CASES, help="measure one case and print it as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(arguments.case, arguments)))
        return
    text = render([run_apart(case) for case in CASES], arguments)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
