"""What it costs to serve windows: weights per core-second against memcpy, and S3 against raw reads.

    python benchmarks/windows.py [--models 8] [--params 16000000] [--steps 200] [--out FILE.md]

Every table is taken in one run. *Local*: models in a local store, in the page cache; what is served
is ``WindowDataset.read`` into a buffer that is used again, in CPU-seconds of the process, in
rounds that alternate with the two yardsticks: ``memcpy`` of as many bytes from random places of an
array of the same size, in pieces of one window, and ``read``, the same by ``os.preadv``. *Share*: of
a training step of the recipe on the CPU, serving and ``to_windows``. *S3*: a real server on
loopback; windows served from an empty cache with prefetch against range reads of the same windows
with the same client and as many threads, in wall time.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

from ws_pipeline.backbone.batches import to_windows
from ws_pipeline.backbone.presets import PRESETS, Preset
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.tokens.window_plan import F32
from ws_pipeline.tokens.windows import PREFETCH_THREADS, WindowDataset
from ws_pipeline.weights.layers import plan_family
from ws_pipeline_tests.storage.s3_server import BUCKET, serve_s3
from ws_pipeline_tests.weights.stage_tables import store_repos

DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
WIDTH = 768
"""Of the synthetic transformer layers: rows of 769 and 3073 numbers, so sliced tokens are padded."""

CPU = torch.device("cpu")


def write_model(folder: Path, num_params: int, dtype: str, seed: int) -> Path:
    """Write blocks of a transformer's matrices, biases and norm scales."""
    random = np.random.default_rng(seed)
    kind: Any = DTYPES[dtype]
    state: dict[str, Any] = {}
    total, block = 0, 0
    while total < num_params:
        shapes = {
            "ln.weight": (WIDTH,),
            "attn.weight": (3 * WIDTH, WIDTH),
            "attn.bias": (3 * WIDTH,),
            "up.weight": (4 * WIDTH, WIDTH),
            "up.bias": (4 * WIDTH,),
            "down.weight": (WIDTH, 4 * WIDTH),
            "down.bias": (WIDTH,),
        }
        for name, shape in shapes.items():
            values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            state[f"h.{block}.{name}"] = values.astype(kind)
            total += values.size
        block += 1
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    return folder


def pack(store: Store, folders: dict[str, Path]) -> pl.DataFrame:
    files = store_repos(store, folders)
    rows = pack_family(store, files, plan_family(store, files)).filter("accepted")
    assert rows.height == len(folders)
    return rows.with_columns(weight=pl.lit(1.0))


def make_dataset(
    store: Store, rows: pl.DataFrame, preset: Preset, kind: Any, steps: int, seed: int = 0
) -> WindowDataset:
    layout = TokenLayout(kind=kind, token_size=preset.layout.token_size)
    return WindowDataset(
        store,
        rows,
        layout=layout,
        window_size=preset.training.window_size,
        batch_size=preset.training.batch_size,
        num_steps=steps,
        seed=seed,
    )


def cpu_seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure_local(
    store: Store, rows: pl.DataFrame, name: str, dtype: str, kind: str, steps: int
) -> dict[str, Any]:
    """Serve, memcpy, preadv in turns; the median of each."""
    preset = PRESETS[name]()
    dataset = make_dataset(store, rows, preset, kind, 5 * steps)
    out = np.zeros(dataset.max_batch_bytes, dtype=np.uint8)
    item = np.dtype(DTYPES[dtype]).itemsize
    plans = [dataset.plan(step) for step in range(steps)]
    num_values = sum(int(plan.reads.counts.sum()) for plan in plans)
    piece = num_values // sum(len(plan.reads.counts) for plan in plans) * item
    paths = [store.blobs.local_path(sha256) for sha256 in rows["shard_sha256"]]
    source = np.concatenate([np.fromfile(path, dtype=np.uint8) for path in paths])
    random = np.random.default_rng(0)
    count = num_values * item // piece
    places = random.integers(0, len(source) - piece, count).tolist()
    slots = (np.arange(count) % preset.training.batch_size * piece).tolist()
    descriptors = [os.open(path, os.O_RDONLY) for path in paths]
    limit = min(path.stat().st_size for path in paths) - piece
    reads = list(
        zip(
            random.choice(descriptors, count).tolist(),
            random.integers(0, limit, count).tolist(),
            slots,
            strict=True,
        )
    )
    view = out.data

    def copy() -> None:
        for place, slot in zip(places, slots, strict=True):
            out[slot : slot + piece] = source[place : place + piece]

    def read() -> None:
        for descriptor, place, slot in reads:
            os.preadv(descriptor, (view[slot : slot + piece],), place)

    turns: dict[str, list[float]] = {"serve": [], "memcpy": [], "read": []}
    for turn in range(5):
        first = turn * steps

        def serve(first: int = first) -> None:
            for step in range(first, first + steps):
                dataset.read(step, out)

        if turn == 0:  # warm up: headers, descriptors, pages
            serve(), copy(), read()
        for key, work in (("serve", serve), ("memcpy", copy), ("read", read)):
            turns[key].append(cpu_seconds(work))
    for descriptor in descriptors:
        os.close(descriptor)
    seconds = {key: statistics.median(values) for key, values in turns.items()}
    rates = {key: num_values / value / 1e9 for key, value in seconds.items()}
    return {
        "recipe": name, "dtype": dtype, "layout": kind, "window kB": piece / 1e3,
        "serve": rates["serve"], "memcpy": rates["memcpy"], "read": rates["read"],
        "serve ms": seconds["serve"] / steps * 1e3,
    }  # fmt: skip


def measure_share(
    store: Store, rows: pl.DataFrame, name: str, dtype: str, steps: int, *, train: bool
) -> dict[str, Any]:
    """Serving and expanding against a training step (forward, loss, backward) on this CPU."""
    from ws_pipeline.backbone.devices import autocast, choose_precision
    from ws_pipeline.backbone.loss import backbone_loss
    from ws_pipeline.backbone.model import Backbone
    from ws_pipeline.backbone.views import augment_windows, make_views, step_generator

    preset = PRESETS[name]()
    dataset = make_dataset(store, rows, preset, preset.layout.kind, 10 * steps)
    out = np.zeros(dataset.max_batch_bytes, dtype=np.uint8)
    dataset.read(0, out)
    serve = cpu_seconds(lambda: [dataset.read(step, out) for step in range(10 * steps)] and None)
    batch = dataset.read(1, out)
    expand = cpu_seconds(lambda: [to_windows(batch, CPU) for _ in range(steps)] and None)
    row = {"recipe": name, "dtype": dtype, "serve ms": serve / steps * 100,
           "expand ms": expand / steps * 1e3}  # fmt: skip
    if train:
        backbone = Backbone(preset.backbone).train()
        precision = choose_precision("auto", CPU)

        def step_once(step: int) -> None:
            generator = step_generator(0, step, 0)
            clean = augment_windows(to_windows(batch, CPU), preset.views, generator=generator)
            views = make_views(clean, preset.views, preset.loss, generator=generator)
            with autocast(precision, CPU):
                output = backbone(*views)
            backbone_loss(output, clean, preset.loss).total.backward()

        step_once(0)
        seconds = cpu_seconds(lambda: [step_once(step) for step in range(steps)] and None)
        row |= {"step ms": seconds / steps * 1e3,
                "serve share": serve / 10 / seconds, "expand share": expand / seconds}  # fmt: skip
    return row


def measure_s3(folder: Path, folders: dict[str, Path], name: str, steps: int) -> dict[str, Any]:
    """Windows against raw range reads, alternating; wall time, since both wait."""
    preset = PRESETS[name]()
    (folder / f"s3-{name}").mkdir()
    with serve_s3(folder / f"s3-{name}") as server:
        root, options = f"s3://{BUCKET}/windows", server.storage_options
        rows = pack(Store.open(root, storage_options=options, cache=folder / "packing"), folders)
        store = Store.open(root, storage_options=options, cache=folder / "cache")
        raw_rates, served_rates, fetched = [], [], 0.0
        with ThreadPoolExecutor(PREFETCH_THREADS) as pool:
            for turn in range(3):
                dataset = make_dataset(store, rows, preset, "dense", steps + 1, seed=turn)
                for values in dataset._values:  # headers once, as in a long training
                    values.read_into(F32, 0, memoryview(bytearray(4)))
                plans = [dataset.plan(step) for step in range(steps)]
                dtype_bytes = 4
                reads = [
                    (rows["shard_sha256"][model], 4096 + start * dtype_bytes, count * dtype_bytes)
                    for plan in plans
                    for model, start, count in zip(
                        plan.reads.models.tolist(),
                        plan.reads.starts.tolist(),
                        plan.reads.counts.tolist(),
                        strict=True,
                    )
                ]
                num_bytes = sum(size for _, _, size in reads)
                began = time.perf_counter()
                list(pool.map(lambda read: store.blobs.read_range(*read), reads))
                raw_rates.append(num_bytes / (time.perf_counter() - began))
                out = np.zeros(dataset.max_batch_bytes, dtype=np.uint8)
                before = dataset._ranges.num_fetched_bytes
                began = time.perf_counter()
                for step in range(steps):
                    dataset.read(step, out)
                served_rates.append(num_bytes / (time.perf_counter() - began))
                fetched += (dataset._ranges.num_fetched_bytes - before) / num_bytes / 3
                dataset.close()
    raw, served = statistics.median(raw_rates), statistics.median(served_rates)
    return {"recipe": name, "window kB": num_bytes / len(reads) / 1e3, "raw MB/s": raw / 1e6,
            "served MB/s": served / 1e6, "share": served / raw,
            "bytes fetched per byte served": fetched}  # fmt: skip


def show(title: str, rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [f"## {title}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--params", type=int, default=16_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--train-small", action="store_true", help="456 M parameters on the CPU")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    local, share, remote = [], [], []
    with tempfile.TemporaryDirectory(prefix="ws-pipeline-") as name:
        folder = Path(name)
        for dtype in DTYPES:
            folders = {
                f"{dtype}-{index}": write_model(
                    folder / "models" / f"{dtype}-{index}", arguments.params, dtype, index
                )
                for index in range(arguments.models)
            }
            store = Store.open(folder / f"store-{dtype}", cache=folder / "local-cache")
            rows = pack(store, folders)
            for recipe, steps in (("tiny", arguments.steps), ("small", arguments.steps // 8)):
                for kind in ("dense", "sliced"):
                    local.append(measure_local(store, rows, recipe, dtype, kind, steps))
                    print(local[-1], flush=True)
                train = recipe == "tiny" or arguments.train_small
                steps = 20 if recipe == "tiny" else 1
                share.append(measure_share(store, rows, recipe, dtype, steps, train=train))
                print(share[-1], flush=True)
            if dtype == "F32":
                for recipe, steps in (("tiny", 20), ("small", 10)):
                    remote.append(measure_s3(folder, folders, recipe, steps))
                    print(remote[-1], flush=True)
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} shared cores, Python "
        f"{platform.python_version()}, torch {torch.__version__} on one thread; {arguments.models} "
        f"models of {arguments.params / 1e6:.0f} M parameters. Rates are G params per CPU-second."
    )
    text = "\n".join(
        ["# Serving windows", "", about, "", show("From the page cache", local),
         show("Against a training step", share), show("From S3 on loopback", remote)]
    )  # fmt: skip
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
