"""What a scan of a whole hub costs us: time per row, memory, and the price of a change by size.

    python benchmarks/crawl.py [--rows 10000 100000 1000000] [--changes 1000] [--out FILE.md]

The simulated hub runs in a process of its own; the scan runs in another, whose CPU time is "our own
cost": parsing, comparing, storing, and the client's share of HTTP, but no waiting. For each size:
a full scan, a scan of the recent changes after ``--changes`` of them, and a full scan again.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.scan import scan_hub
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.server import serve_app_in_thread
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.hub.server.simulation_routes import ADVANCE, make_simulation_app
from ws_pipeline.storage.store import Store

SEED = 7


def serve_hub(num_repos: int, connection: Any) -> None:
    app = make_simulation_app(SimulatedHub(num_repos, seed=SEED))
    with serve_app_in_thread(app) as endpoint:
        connection.send(endpoint)
        connection.recv()  # until the end


def scan_once(endpoint: str, store: str, day: int, kind: str) -> dict[str, Any]:
    """Scan in this process and say what it cost."""
    book = ScanBook.of(Store.open(store))
    now = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=day)
    cpu, wall = time.process_time(), time.perf_counter()
    result = scan_hub(HubClient(endpoint, "hf_any"), book, now=now, full=kind == "full")
    return {
        "kind": result.kind,
        "rows": result.num_listed,
        "pages": result.num_pages,
        "changed": result.num_changed,
        "families": len(result.families),
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_scan(endpoint: str, store: str, day: int, kind: str) -> dict[str, Any]:
    """Scan in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--scan", endpoint, store, str(day), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def measure(num_repos: int, num_changes: int, folder: Path) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve_hub, args=(num_repos, theirs), daemon=True)
    server.start()
    endpoint = ours.recv()
    store = str(folder / f"store-{num_repos}")
    runs = []
    for day, kind in enumerate(("full", "recent", "full")):
        if day:
            url = f"{endpoint}{ADVANCE}?changes={num_changes}"
            urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()
        runs.append({"repos": num_repos, "changes": num_changes * (day > 0)}
                    | run_scan(endpoint, store, day, kind))  # fmt: skip
        size = sum(p.stat().st_size for p in Path(store).rglob("*") if p.is_file())
        runs[-1] |= {"store_mb": size / 1e6}
        print(json.dumps(runs[-1]), flush=True)
    ours.send("end")
    server.join(timeout=10)
    server.terminate()
    return runs


def show(runs: list[dict[str, Any]]) -> str:
    """Return the runs as a Markdown table with the machine and the date."""
    machine = f"{platform.machine()}, {os.cpu_count()} shared cores"
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}; "
        "`python benchmarks/crawl.py`. CPU is the scanning process's, beginning with the first "
        "request; the hub has a process of its own. Each size is one store: a full scan, changes, "
        "a scan of the recent changes, changes, a full scan."
    )
    columns = ["repos", "scan", "rows listed", "rows appended", "families touched", "CPU s"]
    columns += ["CPU µs/row", "wall s", "rows/s", "peak MB", "store MB"]
    head = f"| {' | '.join(columns)} |"
    lines = ["# Scan of a simulated hub", "", about, "", head, "|---" * len(columns) + "|"]
    for run in runs:
        rows = max(run["rows"], 1)
        lines.append(
            f"| {run['repos']:,} | {run['kind']} | {run['rows']:,} | {run['changed']:,} "
            f"| {run['families']} | {run['cpu_s']:.2f} | {run['cpu_s'] / rows * 1e6:.0f} "
            f"| {run['wall_s']:.1f} | {rows / run['wall_s']:.0f} | {run['peak_mb']:.0f} "
            f"| {run['store_mb']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scan", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.scan:
        endpoint, store, day, kind = arguments.scan
        print(json.dumps(scan_once(endpoint, store, int(day), kind)))
        return
    with tempfile.TemporaryDirectory(prefix="ws-pipeline-") as folder:
        runs = [
            run
            for num_repos in arguments.rows
            for run in measure(num_repos, arguments.changes, Path(folder))
        ]
    text = show(runs)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
