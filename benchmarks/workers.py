"""One worker against two at tokenising: two families, one after the other or side by side.

`python benchmarks/workers.py`: crawls a served hub of two families of larger models, then makes
layer plans and token shards of both, in one process and in two, alternating. Where the cores are
shared with other work, wall time says little: then the CPU of both workers together against that of
one says what a second worker costs beside the core that it takes.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

FAMILIES = ("left", "right")


def write_models(hub: Path, num_models: int, num_params: int) -> None:
    width = int(num_params**0.5)
    for family in FAMILIES:
        for seed in range(num_models):
            folder = hub / "lab" / f"{family}-{seed}"
            folder.mkdir(parents=True)
            generator = np.random.default_rng([seed, len(family)])
            weight = generator.normal(0, 0.02, (width, width)).astype(np.float32)
            save_file({"hidden.weight": weight}, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps({"model_type": family}))
            card = f"---\nlicense: apache-2.0\ntags: [{family}]\n---\n# {seed}\n"
            (folder / "README.md").write_text(card)


def prepare(home: Path) -> None:
    """From the hub to verified files."""
    from ws_pipeline.defs.assets.hub import FILES, HEADERS, REPOS, SELECTION
    from ws_pipeline.defs.build import build_defs, default_resources
    from ws_pipeline.defs.instance import execute, open_instance
    from ws_pipeline.defs.partitions import families

    with open_instance(home) as instance:
        instance.add_dynamic_partitions(str(families.name), list(FAMILIES))
        definitions = build_defs(default_resources(home=str(home)))
        for name in FAMILIES:
            execute(definitions, instance, "crawl_family", [REPOS], partition=name)
            stages = [HEADERS, SELECTION, FILES]
            runs = execute(definitions, instance, "refresh_family", stages, partition=name)
            assert all(run.made for run in runs), runs


def tokenize(store: str, names: tuple[str, ...]) -> float:
    """Layer plans and shards of some families; CPU seconds."""
    from ws_pipeline.storage.store import Store
    from ws_pipeline.tokens.shards import pack_family
    from ws_pipeline.weights.layers import plan_family

    opened = Store.open(store)
    started = time.process_time()
    for name in names:
        files = opened.tables.scan(f"hub/files/{name}").collect()
        pack_family(opened, plan_family(opened, files))
    return time.process_time() - started


def time_workers(store: str, num_workers: int) -> tuple[float, float]:
    """CPU seconds of all workers and wall seconds, started processes not counted."""
    work = [FAMILIES] if num_workers == 1 else [(name,) for name in FAMILIES]
    with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
        pool.starmap(tokenize, [(store, ())] * num_workers * 4)  # imports
        started = time.monotonic()
        cpu = sum(pool.starmap(tokenize, [(store, names) for names in work], chunksize=1))
        return cpu, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--params", type=int, default=9_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    best: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        write_models(home / "hub", given.models, given.params)
        prepare(home)
        for repeat in range(given.repeats):
            for num_workers in (1, 2):
                copy = shutil.copytree(home / "store", Path(folder) / f"{repeat}-{num_workers}")
                cpu, wall = time_workers(str(copy), num_workers)
                before = best.get(num_workers, (cpu, wall))
                best[num_workers] = (min(before[0], cpu), min(before[1], wall))
                shutil.rmtree(copy)
    (cpu_1, wall_1), (cpu_2, wall_2) = best[1], best[2]
    print(
        f"load {os.getloadavg()[0]:.1f}; {2 * given.models} models of {given.params:,} parameters"
    )
    print("| workers | CPU s, all | wall s |\n|---|---|---|")
    print(f"| 1 | {cpu_1:.2f} | {wall_1:.2f} |\n| 2 | {cpu_2:.2f} | {wall_2:.2f} |")
    print(
        f"\nspeed-up by wall {wall_1 / wall_2:.2f}, by CPU (2 cores free) {2 * cpu_1 / cpu_2:.2f}"
    )


if __name__ == "__main__":
    main()
