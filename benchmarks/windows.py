"""What it costs to serve windows: weights per core-second beside memcpy, and S3 beside raw reads.

    python benchmarks/windows.py [--models 8] [--params 16000000] [--steps 200] [--out FILE.md]

*Local*: models in a local store, in the page cache. ``WindowDataset.read`` into a buffer that is
used again takes turns with two yardsticks that move as many bytes in pieces of one window from
random places: ``memcpy`` out of an array, and ``os.preadv`` out of the files. *Share*: serving, and
``to_windows``, of a training step on the CPU. *S3*: a real server on loopback; windows served with
prefetch from an empty cache take turns with range reads of as many bytes by the same client.
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
import numpy.typing as npt
import polars as pl
import torch
from safetensors.numpy import save_file

from ws_pipeline.backbone.batches import to_windows
from ws_pipeline.backbone.devices import autocast, choose_precision
from ws_pipeline.backbone.loss import backbone_loss
from ws_pipeline.backbone.model import Backbone
from ws_pipeline.backbone.presets import PRESETS, Preset
from ws_pipeline.backbone.view_draws import draw_views
from ws_pipeline.backbone.views import augment_windows, make_views
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.batch_plan import F32
from ws_pipeline.tokens.layout import TokenLayout
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.tokens.window_batch import WindowBatch
from ws_pipeline.tokens.window_prefetch import PREFETCH_THREADS
from ws_pipeline.tokens.windows import WindowDataset
from ws_pipeline.weights.layers import plan_family
from ws_pipeline_tests.storage.s3_server import BUCKET, serve_s3
from ws_pipeline_tests.weights.stage_tables import store_repos

DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
WIDTH = 768
"""Of the synthetic transformers; rows have 769 and 3073 numbers, so sliced tokens are padded."""

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


Bytes = npt.NDArray[np.uint8]
Work = Callable[[], None]
Row = dict[str, Any]

ROUNDS, S3_ROUNDS = 7, 3
"""The first round of local work warms up: headers, descriptors, pages."""


def pack(store: Store, folders: dict[str, Path]) -> pl.DataFrame:
    """Run the models through the real stages."""
    files = store_repos(store, folders)
    rows = pack_family(store, plan_family(store, files)).filter("accepted")
    assert rows.height == len(folders)
    return rows.with_columns(weight=pl.lit(1.0))


def make_dataset(  # noqa: PLR0917 - a benchmark's own shorthand
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


def cpu_seconds(work: Work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def memcpy_work(paths: list[Path], out: Bytes, piece: int, count: int) -> Work:
    """Copy pieces from random places of an array as large as the files."""
    source = np.concatenate([np.fromfile(path, dtype=np.uint8) for path in paths])
    places = np.random.default_rng(0).integers(0, len(source) - piece, count).tolist()
    slots = (np.arange(count) % (len(out) // piece) * piece).tolist()

    def copy() -> None:
        for place, slot in zip(places, slots, strict=True):
            out[slot : slot + piece] = source[place : place + piece]

    return copy


def read_work(paths: list[Path], out: Bytes, piece: int, count: int) -> Work:
    """Read pieces from random places of the files."""
    random = np.random.default_rng(1)
    descriptors = random.choice([os.open(path, os.O_RDONLY) for path in paths], count).tolist()
    places = random.integers(0, min(p.stat().st_size for p in paths) - piece, count).tolist()
    slots = (np.arange(count) % (len(out) // piece) * piece).tolist()
    view = out.data

    def read() -> None:
        for descriptor, place, slot in zip(descriptors, places, slots, strict=True):
            os.preadv(descriptor, (view[slot : slot + piece],), place)

    return read


def measure_local(
    store: Store, rows: pl.DataFrame, *, name: str, dtype: str, kind: str, steps: int
) -> Row:
    """Serve, memcpy, preadv in turns."""
    dataset = make_dataset(store, rows, PRESETS[name](), kind, ROUNDS * steps)
    out = np.zeros(dataset.max_batch_bytes, dtype=np.uint8)
    item = np.dtype(DTYPES[dtype]).itemsize
    plans = [dataset.plan(step) for step in range(steps)]
    num_values = sum(int(plan.reads.counts.sum()) for plan in plans)
    piece = num_values // sum(len(plan.reads.counts) for plan in plans) * item
    paths = [store.blobs.local_path(sha256) for sha256 in rows["shard_sha256"]]
    turns = iter(range(ROUNDS * steps))

    def serve() -> None:
        for _ in range(steps):
            dataset.read(next(turns), out)

    count = num_values * item // piece
    works = {
        "serve": serve,
        "memcpy": memcpy_work(paths, out, piece, count),
        "read": read_work(paths, out, piece, count),
    }
    seconds: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(ROUNDS):
        for key, work in works.items():
            seconds[key].append(cpu_seconds(work))
    best = {key: num_values / min(values[1:]) / 1e9 for key, values in seconds.items()}
    pairs = zip(seconds["memcpy"][1:], seconds["serve"][1:], strict=True)
    return {
        "recipe": name,
        "dtype": dtype,
        "layout": kind,
        "kB a window": piece / 1e3,
        "serve": best["serve"],
        "memcpy": best["memcpy"],
        "preadv": best["read"],
        "serve / memcpy, median": statistics.median(ours / serve for ours, serve in pairs),
        "serve, ms a step": min(seconds["serve"][1:]) / steps * 1e3,
    }


def measure_share(
    store: Store, rows: pl.DataFrame, *, name: str, dtype: str, steps: int, train: bool
) -> Row:
    """Serving and expanding against a training step (forward, loss, backward) on this CPU."""
    preset = PRESETS[name]()
    dataset = make_dataset(store, rows, preset, preset.layout.kind, 10 * steps)
    out = np.zeros(dataset.max_batch_bytes, dtype=np.uint8)

    def serve() -> None:
        for step in range(10 * steps):
            dataset.read(step, out)

    def expand() -> None:
        for _ in range(steps):
            to_windows(batch, CPU)

    serve()
    serving = cpu_seconds(serve) / (10 * steps)
    batch = dataset.read(1, out)
    expand()
    expanding = cpu_seconds(expand) / steps
    row = {
        "recipe": name,
        "dtype": dtype,
        "serve, ms": serving * 1e3,
        "expand, ms": expanding * 1e3,
    }
    if not train:
        return row
    train_once = make_training_step(preset, batch)
    train_once(0)
    began = time.process_time()
    for step in range(steps):
        train_once(step)
    seconds = (time.process_time() - began) / steps
    return row | {
        "training step, ms": seconds * 1e3,
        "serve, share": serving / seconds,
        "expand, share": expanding / seconds,
    }


def make_training_step(preset: Preset, batch: WindowBatch) -> Callable[[int], None]:
    backbone = Backbone(preset.backbone).train()
    precision = choose_precision("auto", CPU)

    def train_once(step: int) -> None:
        size = batch.num_windows
        draws = draw_views(0, step * size, size)
        clean = augment_windows(to_windows(batch, CPU), preset.views, draws)
        views = make_views(clean, preset.views, preset.loss, draws)
        with autocast(precision, CPU):
            output = backbone(*views.inputs)
        backbone_loss(output, views.targets, preset.loss).total.backward()

    return train_once


def measure_s3(store: Store, rows: pl.DataFrame, *, name: str, steps: int) -> Row:
    """Windows against raw range reads, in turns; wall time, since both wait."""
    raw, served, fetched, num_bytes, num_reads = [], [], 0, 0, 0
    for turn in range(S3_ROUNDS):
        dataset = make_dataset(store, rows, PRESETS[name](), "dense", steps, seed=turn)
        ranges = dataset._ranges
        for values in dataset._values:  # headers and sizes, once in a training
            values.read_into(F32, 0, memoryview(bytearray(4)))
        ranges.close()  # empties the cache
        ranges.num_fetched_bytes = 0
        reads = [
            (rows["shard_sha256"][model], start * 4, count * 4)
            for plan in (dataset.plan(step) for step in range(steps))
            for model, start, count in zip(
                *(
                    column.tolist()
                    for column in (plan.reads.models, plan.reads.starts, plan.reads.counts)
                ),
                strict=True,
            )
        ]
        size = sum(read[2] for read in reads)
        out = np.zeros(dataset.max_batch_bytes, dtype=np.uint8)
        with ThreadPoolExecutor(PREFETCH_THREADS) as pool:
            began = time.perf_counter()
            list(pool.map(lambda read: store.blobs.read_range(*read), reads))
            raw.append(size / (time.perf_counter() - began))
        began = time.perf_counter()
        for step in range(steps):
            dataset.read(step, out)
        served.append(size / (time.perf_counter() - began))
        fetched, num_bytes = fetched + ranges.num_fetched_bytes, num_bytes + size
        num_reads += len(reads)
        dataset.close()
    shares = [ours / theirs for ours, theirs in zip(served, raw, strict=True)]
    return {
        "recipe": name,
        "kB a window": num_bytes / num_reads / 1e3,
        "raw, MB/s": max(raw) / 1e6,
        "served, MB/s": max(served) / 1e6,
        "served / raw, median": statistics.median(shares),
        "bytes fetched per byte served": fetched / num_bytes,
    }


def show(title: str, rows: list[Row]) -> str:
    names = list(rows[0])
    lines = [f"## {title}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        values = [row.get(name, "-") for name in names]
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(arguments: argparse.Namespace, folder: Path) -> str:
    local: list[Row] = []
    share: list[Row] = []
    remote: list[Row] = []
    steps = {"tiny": arguments.steps, "small": max(2, arguments.steps // 16)}
    for dtype in DTYPES:
        folders = {
            f"{dtype}-{index}": write_model(
                folder / "models" / f"{dtype}-{index}", arguments.params, dtype, index
            )
            for index in range(arguments.models)
        }
        store = Store.open(folder / f"store-{dtype}", cache=folder / "local-cache")
        rows = pack(store, folders)
        for name, count in steps.items():
            local += [
                measure_local(store, rows, name=name, dtype=dtype, kind=kind, steps=count)
                for kind in ("dense", "sliced")
            ]
            train = name == "tiny" or arguments.train_small
            count = 20 if name == "tiny" else 1  # noqa: PLW2901 - training steps are slow
            share.append(
                measure_share(store, rows, name=name, dtype=dtype, steps=count, train=train)
            )
        if dtype == "F32":
            with serve_s3(folder) as server:
                root, options = f"s3://{BUCKET}/windows", server.storage_options
                packing = Store.open(root, storage_options=options, cache=folder / "packing")
                rows = pack(packing, folders)
                store = Store.open(root, storage_options=options, cache=folder / "cache")
                remote = [
                    measure_s3(store, rows, name=name, steps=count)
                    for name, count in (("tiny", 40), ("small", 8))
                ]
    return "\n".join(
        [
            show("From the page cache, G params per CPU-second", local),
            show("Against a training step, CPU time", share),
            show("From S3 on loopback, an empty cache", remote),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--params", type=int, default=16_000_000)
    parser.add_argument("--steps", type=int, default=200, help="of the tiny recipe in a round")
    parser.add_argument("--train-small", action="store_true", help="456 M parameters on the CPU")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ws-pipeline-") as name:
        tables = run(arguments, Path(name))
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} shared cores, "
        f"Python {platform.python_version()}, torch {torch.__version__} on one thread; "
        f"{arguments.models} models of {arguments.params / 1e6:.0f} M parameters; "
        "`python benchmarks/windows.py`. Rates are the best of the rounds."
    )
    text = "\n".join(["# Serving windows", "", about, "", tables])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
