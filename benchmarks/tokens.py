"""What tokenising costs us and costs the peers' method: CPU time, memory, bytes, side by side.

    python benchmarks/tokens.py [--parts gpt2 cnn zoo synthetic] [--gigabytes 20] [--out FILE.md]

Every part runs in a process of its own with one thread. "Per-row method" is a plain
reimplementation of what the released tokenisers do (SANE, https://github.com/HSG-AIML/SANE,
tokenize_checkpoint: rows padded and cut to tokens, a mask and integer positions for every token),
in memory, from a loaded state dict; it neither reads nor writes nor hashes, normalises nor
measures. The column "published" quotes what was measured of the official code on another machine.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline.storage.objects import HashingWriter
from ws_pipeline.storage.store import Store
from ws_pipeline.tokens.shards import pack_family
from ws_pipeline.weights.checkpoint import Checkpoint
from ws_pipeline.weights.layers import plan_family
from ws_pipeline.weights.model_plan import plan_model
from ws_pipeline.weights.packing import plan_checkpoint, write_shard
from ws_pipeline.weights.plan import plan_layers
from ws_pipeline.weights.populations import pack_population
from ws_pipeline.weights.row_statistics import QUANTILES
from ws_pipeline.weights.values import CHUNK_BYTES, TensorValues

PUBLISHED = {"gpt2": 61.0, "cnn": 8.9}
"""Million parameters per CPU-second of SANE's official tokeniser."""
PUBLISHED_ZOO_CPU_SECONDS, PUBLISHED_ZOO_BYTES = 90.0, 66.0
"""Of the official preparation of one ResNet-18: per model, and per parameter."""

GPT2_TOKEN_SIZE, CNN_TOKEN_SIZE = 230, 201  # the hub paper's; the widest row of the CNN
REPEATS = 5
ZOO_REPEATS = 3
Tensors = dict[str, np.ndarray[Any, Any]]


class Discard:
    """Takes bytes and forgets them."""

    def write(self, data: bytes | memoryview) -> None:
        """Take ``data``."""


def make_gpt2(width: int = 768, num_blocks: int = 12) -> Tensors:
    """GPT-2 with random weights: its names, its shapes, its transposed Conv1D layout."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    tensors = {"wte.weight": draw(50257, width), "wpe.weight": draw(1024, width)}
    shapes = {
        "attn.c_attn": (1, 3),
        "attn.c_proj": (1, 1),
        "mlp.c_fc": (1, 4),
        "mlp.c_proj": (4, 1),
    }
    for block in range(num_blocks):
        for name, (fan_in, fan_out) in shapes.items():
            tensors[f"h.{block}.{name}.weight"] = draw(fan_in * width, fan_out * width)
            tensors[f"h.{block}.{name}.bias"] = draw(fan_out * width)
        for name in (f"h.{block}.ln_1", f"h.{block}.ln_2"):
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + draw(width), draw(width)
    return tensors | {"ln_f.weight": 1 + draw(width), "ln_f.bias": draw(width)}


def make_cnn(rng: np.random.Generator) -> Tensors:
    """The 2,464-parameter CNN of the released small zoos."""
    shapes = {
        "0": (8, 1, 5, 5),
        "3": (6, 8, 5, 5),
        "6": (4, 6, 2, 2),
        "9": (20, 36),
        "11": (10, 20),
    }
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = 0.1 * rng.standard_normal(shape, dtype=np.float32)
        tensors[f"{name}.bias"] = 0.1 * rng.standard_normal(shape[0], dtype=np.float32)
    return tensors


def make_resnet18(rng: np.random.Generator) -> Tensors:
    """A ResNet-18 for small images, 11.2 M parameters, with random weights."""
    tensors: Tensors = {}

    def add_convolution(name: str, norm: str, shape: tuple[int, ...]) -> None:
        tensors[f"{name}.weight"] = 0.05 * rng.standard_normal(shape, dtype=np.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{norm}.{part}"] = rng.random(shape[0], dtype=np.float32)
        tensors[f"{norm}.num_batches_tracked"] = np.array(1000, np.int64)

    add_convolution("conv1", "bn1", (64, 3, 3, 3))
    fan_in = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            add_convolution(f"{name}.conv1", f"{name}.bn1", (width, fan_in, 3, 3))
            add_convolution(f"{name}.conv2", f"{name}.bn2", (width, width, 3, 3))
            if fan_in != width:
                add_convolution(
                    f"{name}.downsample.0", f"{name}.downsample.1", (width, fan_in, 1, 1)
                )
            fan_in = width
    tensors["fc.weight"] = 0.05 * rng.standard_normal((10, 512), dtype=np.float32)
    tensors["fc.bias"] = np.zeros(10, np.float32)
    return tensors


def tokenize_rows(state: Mapping[str, torch.Tensor], token_size: int) -> tuple[torch.Tensor, ...]:
    """The per-row method: tokens, masks, positions of one state dict."""
    tokens, masks, places = [], [], []
    for layer, name in enumerate(key for key in state if key.endswith("weight")):
        rows = state[name].reshape(state[name].shape[0], -1)
        bias = state.get(name.removesuffix("weight") + "bias")
        if bias is not None:
            rows = torch.cat([rows, bias[:, None]], dim=1)
        per_row = -(-rows.shape[1] // token_size)
        places += [[layer, row] for row in range(rows.shape[0]) for _ in range(per_row)]
        mask = torch.zeros(rows.shape[0], per_row * token_size)
        mask[:, : rows.shape[1]] = torch.ones(rows.shape)
        padded = torch.zeros(rows.shape[0], per_row * token_size)
        padded[:, : rows.shape[1]] = rows
        tokens.append(padded.view(-1, token_size))
        masks.append(mask.view(-1, token_size).to(torch.bool))
    positions = torch.tensor([(place, *pair) for place, pair in enumerate(places)])
    dtype = torch.int if positions.max() > 32767 else torch.int16
    return torch.cat(tokens), torch.cat(masks), positions.to(dtype)


def tokenize_rows_to_file(path: Path, token_size: int, out: Path, transposed: bool) -> None:
    """The per-row method with what ours also does: read, s(W), standardise by layer, store."""
    state = load_state(path, transposed)
    for values in state.values():
        array = values.numpy()
        np.quantile(array, QUANTILES)
        array -= array.mean()
        array /= array.std() or 1.0
    torch.save(tokenize_rows(state, token_size), out)


def load_state(path: Path, transposed: bool) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint.open(path)
    state = {name: torch.from_numpy(checkpoint.read(name)) for name in checkpoint.tensors}
    if transposed:  # the per-row method cannot do Conv1D: it gets them as linear layers
        for name, values in state.items():
            if ".c_" in name and values.ndim == 2:
                state[name] = values.T.contiguous()
    return state


def cpu_seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the median CPU time of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def extra_bytes(work: Callable[[], Any]) -> int:
    """Return by how much ``work`` raises this process's resident memory at its peak."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = read_status("VmRSS")
    work()
    return read_status("VmHWM") - before


def read_status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def pack_to(path: Path, out: Any) -> Any:
    """Plan, measure and write one checkpoint."""
    checkpoint = Checkpoint.open(path)
    return write_shard(checkpoint, plan_model(checkpoint), out)


def measure_roofline(checkpoint: Checkpoint, out: Path) -> dict[str, float]:
    """What cannot be saved: reading each byte once, hashing and writing it, in chunks as ours."""
    values = [TensorValues(checkpoint, name) for name in checkpoint.tensors]
    chunk = np.ones(CHUNK_BYTES, np.uint8).data

    def read() -> None:
        for tensor in values:
            for _ in tensor.chunks():
                pass

    def digest() -> None:
        state = hashlib.sha256()
        for _ in range(checkpoint.data_bytes // CHUNK_BYTES):
            state.update(chunk)

    def write() -> None:
        with out.open("wb") as file:
            for _ in range(checkpoint.data_bytes // CHUNK_BYTES):
                file.write(chunk)
            os.fsync(file.fileno())

    return {work.__name__: cpu_seconds(work) for work in (read, digest, write)}


def measure_packing(path: Path, folder: Path) -> dict[str, Any]:
    """Pack one file with less and less left out; nanoseconds and rates per parameter."""
    checkpoint = Checkpoint.open(path)
    num_params = sum(tensor.num_params for tensor in checkpoint.tensors.values())

    def pack_to_file(*, hashed: bool) -> None:
        with (folder / "shard").open("wb") as file:
            pack_to(path, HashingWriter(file) if hashed else file)
            os.fsync(file.fileno())

    bounds = measure_roofline(checkpoint, folder / "shard")
    figures = {
        "statistics": cpu_seconds(lambda: plan_checkpoint(checkpoint)),
        "ours": cpu_seconds(lambda: pack_to(path, Discard())),
        "ours_file": cpu_seconds(lambda: pack_to_file(hashed=False)),
        "ours_stored": cpu_seconds(lambda: pack_to_file(hashed=True)),
    }
    nanoseconds = {name: 1e9 * seconds / num_params for name, seconds in bounds.items()} | {
        "arithmetic": 1e9 * (figures["statistics"] - bounds["read"]) / num_params,
        "turning": 1e9 * (figures["ours"] - figures["statistics"]) / num_params,
    }
    rates = {name: num_params / seconds / 1e6 for name, seconds in figures.items()}
    return {
        "num_params": num_params,
        "stored": (folder / "shard").stat().st_size / checkpoint.data_bytes,
        "bound": num_params / sum(bounds.values()) / 1e6,
        "ns": {name: round(number, 2) for name, number in nanoseconds.items()},
        **rates,
    }


def measure_gpt2(folder: Path) -> dict[str, Any]:
    path = folder / "model.safetensors"
    save_file(make_gpt2(), path)
    packed = measure_packing(path, folder)
    num_params = packed["num_params"]
    state = load_state(path, transposed=True)
    rows = cpu_seconds(lambda: tokenize_rows(state, GPT2_TOKEN_SIZE))
    state.clear()
    rows_file = cpu_seconds(
        lambda: tokenize_rows_to_file(path, GPT2_TOKEN_SIZE, folder / "rows.pt", True), repeats=1
    )
    rows_bytes = (folder / "rows.pt").stat().st_size / num_params
    return packed | {
        "rows": num_params / rows / 1e6,
        "rows_file": num_params / rows_file / 1e6,
        "rows_bytes": rows_bytes,
    }


def measure_bf16(folder: Path) -> dict[str, Any]:
    path = folder / "model.safetensors"
    tensors = make_gpt2()
    save_file({name: values.astype(ml_dtypes.bfloat16) for name, values in tensors.items()}, path)
    return measure_packing(path, folder)


def measure_cnn(folder: Path, num_models: int = 2000, num_stored: int = 1000) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    models = [make_cnn(rng) for _ in range(num_models)]
    num_params = sum(values.size for values in models[0].values())
    states = [{name: torch.from_numpy(v) for name, v in model.items()} for model in models]
    rows = cpu_seconds(lambda: [tokenize_rows(state, CNN_TOKEN_SIZE) for state in states])
    stacked = {name: np.stack([model[name] for model in models]) for name in models[0]}
    path = folder / "one.safetensors"
    save_file(models[0], path)
    plan = plan_layers(list(Checkpoint.open(path).tensors.values()), {})
    ours = cpu_seconds(lambda: pack_population(plan.layers, stacked))
    stage = measure_stages(folder / "home", models[:num_stored])
    return {
        "num_params": num_params,
        "rows": num_models * num_params / rows / 1e6,
        "ours": num_models * num_params / ours / 1e6,
        "stages": num_stored * num_params / stage["cpu_s"] / 1e6,
        "stage_ms": stage["cpu_s"] / num_stored * 1e3,
        "stored": stage["shard_bytes"] / (4 * num_params * num_stored),
        "stored_all": stage["store_bytes"] / (4 * num_params * num_stored),
    }


def measure_stages(home: Path, models: list[Tensors]) -> dict[str, Any]:
    """Run the two stages over models, one repo each, and count the bytes they add to the store."""
    store = Store.open(home / "store", cache=home / "cache")
    rows = []
    for index, model in enumerate(models):
        save_file(model, home / "model.safetensors")
        blob = store.blobs.put_file(home / "model.safetensors")
        file = {"path": "model.safetensors", "sha256": blob.sha256, "num_bytes": blob.num_bytes}
        key = manifest_key("files", f"id{index}", "r1", "1")
        store.manifests.create(key, {"files": [file]})
        identity = {"hub_id": f"id{index}", "repo_id": f"zoo/{index}", "revision": "r1"}
        verdict = {"accepted": True, "reason": "", "detail": "", "reused": False}
        rows.append(identity | verdict | {"manifest": key})
    (home / "model.safetensors").unlink()
    before = folder_bytes(home)
    files = pl.DataFrame(rows)
    started = time.process_time()
    layers = plan_family(store, files)
    shards = pack_family(store, layers)
    layers.write_parquet(home / "layers.parquet")
    shards.write_parquet(home / "shards.parquet")
    cpu_s = time.process_time() - started
    assert shards["accepted"].all()
    return {
        "cpu_s": cpu_s,
        "store_bytes": folder_bytes(home) - before,
        "shard_bytes": shards["num_bytes"].sum(),
    }


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_zoo(folder: Path, num_models: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    models = [make_resnet18(rng) for _ in range(num_models)]
    num_params = sum(v.size for name, v in models[0].items() if v.dtype == np.float32)
    runs = []
    for _ in range(ZOO_REPEATS):
        with tempfile.TemporaryDirectory(dir=folder) as home:
            runs.append(measure_stages(Path(home), models))
    seconds = sorted(run["cpu_s"] / num_models for run in runs)
    return {
        "num_params": num_params,
        "num_models": num_models,
        "cpu_s": statistics.median(seconds),
        "cpu_s_least": seconds[0],
        "cpu_s_most": seconds[-1],
        "bytes_per_param": runs[0]["store_bytes"] / num_models / num_params,
    }


def measure_synthetic(folder: Path, gigabytes: float) -> dict[str, Any]:
    """Pack a sharded model of sparse files, which holds zeros, into a hash; see the peak memory."""
    num_files, width = 10, 8192
    rows = int(gigabytes * 1e9 / num_files / (4 * 4 * width))
    weight_map = {}
    for part in range(num_files):
        name = f"model-{part:05}-of-{num_files:05}.safetensors"
        header: dict[str, Any] = {}
        for index in range(4):
            start = index * rows * width * 4
            header[f"layers.{4 * part + index}.mlp.weight"] = {
                "dtype": "F32",
                "shape": [rows, width],
                "data_offsets": [start, start + rows * width * 4],
            }
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + 4 * rows * width * 4)
        weight_map |= dict.fromkeys(header, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    started = time.process_time()
    with Path(os.devnull).open("wb") as sink:
        out = HashingWriter(sink)
        extra = extra_bytes(lambda: pack_to(folder, out))
    return {
        "gigabytes": out.num_bytes / 1e9,
        "peak_mb": extra / 1e6,
        "slice_mb": rows * width * 4 / 1e6,
        "rate": out.num_bytes / 4e6 / (time.process_time() - started),
    }


def measure_memory(folder: Path) -> dict[str, Any]:
    """Peak memory that packing a GPT-2 adds; in a process that has not seen its weights."""
    command = [sys.executable, __file__, "--write-gpt2", str(folder)]
    subprocess.run(command, check=True)
    save_file({"fc.weight": np.ones((200, 100), np.float32)}, folder / "small.safetensors")
    compiled = extra_bytes(lambda: pack_to(folder / "small.safetensors", Discard()))
    with (folder / "shard").open("wb") as file:
        out = HashingWriter(file)
        extra = extra_bytes(lambda: pack_to(folder / "model.safetensors", out))
    return {"peak_mb": extra / 1e6, "compiled_loops_mb": compiled / 1e6}


def run_part(part: str, gigabytes: float, folder: Path) -> dict[str, Any]:
    """Measure one part in a fresh process, with one thread."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--gigabytes", str(gigabytes)],
        check=True, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as Markdown tables with the machine and the date."""
    lines = [
        "# Tokenising",
        "",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} shared cores, "
            f"load {os.getloadavg()[0]:.0f}, Python {platform.python_version()}; `python "
            f"benchmarks/tokens.py`. CPU time, one thread, median of {REPEATS}."
        ),
        "",
        "| what | M params per CPU-s | over per-row method of this run | over published |",
        "|---|---|---|---|",
    ]
    for part, rows in ROWS.items():
        for key, what in rows.items():
            if part in results:
                rate = results[part][key]
                peer = {"bf16": "gpt2"}.get(part, part)
                theirs = f"{rate / PUBLISHED[peer]:.1f}x"
                ours = f"{rate / results[peer]['rows']:.1f}x" if peer in results else ""
                lines.append(f"| {what} | {rate:,.1f} | {ours} | {theirs} |")
    lines.append("")
    lines += [*show_roofline(results), ""]
    for part, figures in results.items():
        rounded = {name: round(v, 3) if name != "ns" else v for name, v in figures.items()}
        lines += [f"`{part}`: `{json.dumps(rounded)}`", ""]
    if "zoo" in results:
        zoo = results["zoo"]
        lines += [
            (
                f"ResNet-18 zoo, both stages with all they store: {zoo['cpu_s']:.3f} CPU-s per "
                f"model, {PUBLISHED_ZOO_CPU_SECONDS / zoo['cpu_s']:,.0f}x less than published; "
                f"{zoo['bytes_per_param']:.2f} bytes per parameter, "
                f"{PUBLISHED_ZOO_BYTES / zoo['bytes_per_param']:.1f}x less. Measured on "
                f"{zoo['num_models']:.0f} models with random weights; a zoo of 140 is that "
                "many times the one."
            ),
            "",
        ]
    return "\n".join(lines)


def show_roofline(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return where the time goes; the first three are a bound for what reads, hashes and writes."""
    names = ("read", "digest", "write", "arithmetic", "turning")
    lines = [
        f"| ns per parameter | {' | '.join(names)} | sum | bound, M/s | measured, M/s |",
        f"|---|{'---|' * (len(names) + 3)}",
    ]
    for part, what in (("gpt2", "GPT-2, float32"), ("bf16", "GPT-2, bfloat16")):
        if part in results:
            found = results[part]
            cells = " | ".join(f"{found['ns'][name]:.2f}" for name in names)
            total = sum(found["ns"].values())
            lines.append(
                f"| {what} | {cells} | {total:.2f} | {found['bound']:.0f} | "
                f"{found['ours_stored']:.0f} |"
            )
    return lines


ROWS = {
    "gpt2": {
        "statistics": "GPT-2: plan and s(W) statistics alone",
        "ours": "GPT-2: from file to values in token order with statistics, not written",
        "ours_file": "GPT-2: the same, written and flushed, not hashed",
        "ours_stored": "GPT-2: the same, written and hashed: what the stages do",
        "rows": "GPT-2: per-row method, in memory",
        "rows_file": "GPT-2: per-row method, read, s(W), standardised, stored",
    },
    "bf16": {
        "statistics": "GPT-2 in bfloat16: plan and s(W) statistics alone",
        "ours_stored": "GPT-2 in bfloat16: from file, with statistics, written and hashed",
    },
    "cnn": {
        "stages": "1,000 CNNs through both stages, with manifests, tables and flushes",
        "ours": "2,000 CNNs in a batch: values in token order with statistics, in memory",
        "rows": "2,000 CNNs: per-row method, in memory",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {
        "gpt2": measure_gpt2,
        "bf16": measure_bf16,
        "cnn": measure_cnn,
        "zoo": measure_zoo,
        "memory": measure_memory,
    }
    names = [*parts, "synthetic"]
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write-gpt2", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.write_gpt2:
        save_file(make_gpt2(), arguments.write_gpt2 / "model.safetensors")
        return
    if arguments.part == "synthetic":
        print(json.dumps(measure_synthetic(arguments.folder, arguments.gigabytes)))
        return
    if arguments.part:
        print(json.dumps(parts[arguments.part](arguments.folder)))
        return
    results = {}
    for part in arguments.parts:
        with tempfile.TemporaryDirectory(prefix="ws-pipeline-") as folder:
            results[part] = run_part(part, arguments.gigabytes, Path(folder))
        print(part, json.dumps(results[part]), flush=True)
    text = show(results)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
