"""A download killed at any moment leaves nothing half-written, and ends like one left alone."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.scripted_hub import connect, make_weights, write_repo
from ws_pipeline_tests.storage.s3_server import BUCKET, S3Server, serve_s3

NUM_REPOS = 4
NUM_ROWS = 60_000
"""Of weights: files of 2.6 MB, which take longer to come than to start."""


class Worker:
    """The process that forks crawlers."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ws_pipeline_tests.abuse.kill_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, request: dict[str, Any], kill_after: float | None = None) -> tuple[int, float]:
        """Return how a crawler ended, and how long it took."""
        assert self.process.stdin is not None
        started = time.monotonic()
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        pid = int(self._read())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self._read()), time.monotonic() - started


class Reader(threading.Thread):
    """Follows the store all the time, and keeps what it saw that nobody may ever see."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self.store, self.stopped = store, threading.Event()
        self.broken: list[str] = []
        self.lock = threading.Lock()
        self.num_looks = 0
        self.seen: set[str] = set()

    def run(self) -> None:
        while not self.stopped.is_set():
            with self.lock:
                self.look()
            self.num_looks += 1
            time.sleep(0.01)

    def look(self) -> None:
        try:
            for key in self.store.manifests.keys("files"):
                for file in self.store.manifests.read(key)["files"]:
                    if not self.store.blobs.exists(file["sha256"]):
                        self.broken.append(f"{key} refers to what is not there")
            for key in self.store.blobs.folder.keys("blobs"):
                if key not in self.seen:
                    self.store.blobs.read(key.rpartition("/")[2])
                    self.seen.add(key)
            if self.store.tables.exists("hub/files/mlp"):
                assert self.store.tables.scan("hub/files/mlp").collect().height == NUM_REPOS
        except MissingInputError as error:
            if "no object at" not in str(error):  # a folder that is not made yet is fine
                self.broken.append(repr(error))
        except Exception as error:  # noqa: BLE001 - any of them is a finding
            self.broken.append(repr(error))


def contents(store: Store) -> dict[str, str]:
    folder = store.blobs.folder
    return {
        key: hashlib.sha256(folder.read(key)).hexdigest()
        for part in ("blobs", "manifests", "tables")
        for key in folder.keys(part)
    }


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    with worker.process:
        yield worker
        assert worker.process.stdin is not None
        worker.process.stdin.close()


@pytest.fixture
def request_for(tmp_path: Path) -> Iterator[dict[str, Any]]:
    hub = tmp_path / "hub"
    for number in range(NUM_REPOS):
        weights = make_weights(number, rows=NUM_ROWS + number)
        write_repo(hub, f"zoo/m{number}", weights=weights, created=number)
    with serve_in_thread(hub) as endpoint:
        ledger = Ledger(store=Store.open(tmp_path / "listing"))
        now = datetime(2026, 11, 1, tzinfo=UTC)
        frame = crawl_family(connect(endpoint), ledger, "mlp", now=now).frame
        frame.write_parquet(tmp_path / "repos.parquet")
        yield {"endpoint": endpoint, "repos": str(tmp_path / "repos.parquet"), "options": {}}


def kill_again_and_again(
    worker: Worker, request: dict[str, Any], roots: tuple[str, str], caches: Path, num_kills: int
) -> None:
    calm = request | {"root": roots[0], "cache": str(caches / "calm")}
    rough = request | {"root": roots[1], "cache": str(caches / "rough")}
    status, seconds = worker.run(calm)
    assert status == 0
    stores = [
        Store.open(root, storage_options=request["options"], cache=caches / "reader")
        for root in roots
    ]
    parts = Path(rough["cache"] if roots[1].startswith("s3://") else roots[1]) / ".tmp" / "parts"
    generator = random.Random(0)
    reader = Reader(stores[1])
    reader.start()
    num_killed = num_mid_file = 0
    while num_killed < num_kills:
        status, _ = worker.run(rough, kill_after=generator.uniform(0.0, 1.1 * seconds))
        num_killed += status == signal.SIGKILL
        num_mid_file += any(part.stat().st_size for part in parts.glob("*"))
        if status == 0:  # it was done before the kill: begin anew
            with reader.lock:
                assert contents(stores[1]) == contents(stores[0])
                for key in contents(stores[1]):
                    stores[1].blobs.folder.remove(key)
                reader.seen.clear()
    status, _ = worker.run(rough)
    reader.stopped.set()
    reader.join()
    assert status == 0
    assert contents(stores[1]) == contents(stores[0])
    assert not list(parts.glob("*"))
    assert reader.num_looks > num_kills
    assert reader.broken == []
    assert num_mid_file > 0
    print(f"{num_killed} kills, {num_mid_file} of them in the middle of a file")  # noqa: T201


def test_a_download_killed_again_and_again_ends_like_one_left_alone(
    worker: Worker, request_for: dict[str, Any], tmp_path: Path
) -> None:
    roots = (str(tmp_path / "calm"), str(tmp_path / "rough"))
    kill_again_and_again(worker, request_for, roots, tmp_path, 12)


@pytest.mark.slow
def test_a_hundred_kills(worker: Worker, request_for: dict[str, Any], tmp_path: Path) -> None:
    roots = (str(tmp_path / "calm"), str(tmp_path / "rough"))
    kill_again_and_again(worker, request_for, roots, tmp_path, 100)


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[S3Server]:
    (tmp_path / "s3").mkdir()
    with serve_s3(tmp_path / "s3") as server:
        yield server


@pytest.mark.slow
def test_kills_over_an_object_store(
    worker: Worker, request_for: dict[str, Any], tmp_path: Path, s3_server: S3Server
) -> None:
    request = request_for | {"options": s3_server.storage_options}
    roots = (f"s3://{BUCKET}/calm", f"s3://{BUCKET}/rough")
    kill_again_and_again(worker, request, roots, tmp_path, 30)
