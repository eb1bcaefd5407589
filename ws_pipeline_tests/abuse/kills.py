"""A worker that is killed again and again, a reader that looks on, and what has to come of it."""

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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ws_pipeline.errors import MissingInputError
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.repo import REPO_SCHEMA, frame_digest
from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.scan_rows import SCAN_SCHEMA
from ws_pipeline.storage.store import Store

FOLDERS = ("blobs", "manifests", "scan", "tables/hub")
"""Where every byte has to be that of an undisturbed run."""


class Worker:
    """The process that forks what is killed."""

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
        """Return how a child ended, and how long it took."""
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


@contextmanager
def start_worker() -> Iterator[Worker]:
    worker = Worker()
    with worker.process:
        yield worker
        assert worker.process.stdin is not None
        worker.process.stdin.close()


@dataclass
class Reader(threading.Thread):
    """Follows a store all the time, and keeps what it saw that nobody may ever see."""

    store: Store
    broken: list[str] = field(default_factory=list)
    num_looks: int = 0
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.stopped, self.lock = threading.Event(), threading.Lock()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        while not self.stopped.is_set():
            with self.lock:
                for look in (self.look_at_files, self.look_at_book, self.look_at_tables):
                    try:
                        look()
                    except MissingInputError as error:
                        if "no object at" not in str(error):  # a folder is not made yet: fine
                            self.broken.append(repr(error))
                    except Exception as error:  # noqa: BLE001 - any of them is a finding
                        self.broken.append(repr(error))
            self.num_looks += 1
            time.sleep(0.01)

    def look_at_files(self) -> None:
        for key in self.store.blobs.folder.keys("manifests"):
            if key not in self.seen:
                manifest = json.loads(self.store.blobs.folder.read(key))
                self.seen.add(key)
                for file in manifest["files"] if key.startswith("manifests/files/") else ():
                    if not self.store.blobs.exists(file["sha256"]):
                        self.broken.append(f"{key} refers to what is not there")
                shard = manifest.get("shard")
                if shard and not self.store.blobs.exists(shard["sha256"]):
                    self.broken.append(f"{key} refers to a shard that is not there")
        for key in self.store.blobs.folder.keys("blobs"):
            if key not in self.seen:
                self.store.blobs.read(key.rpartition("/")[2])  # checks the digest
                self.seen.add(key)

    def look_at_book(self) -> None:
        book = ScanBook.of(self.store)
        for family in book.families():
            frame = book.read(family)
            if dict(frame.schema) != SCAN_SCHEMA or frame["hub_id"].is_duplicated().any():
                self.broken.append(f"{family}: {frame}")

    def look_at_tables(self) -> None:
        ledger = Ledger(store=self.store)
        for family in ledger.families():
            frame = ledger.read(family)
            if dict(frame.schema) != REPO_SCHEMA or frame.is_empty():
                self.broken.append(f"{family}: {frame}")
        for key in self.store.tables.keys("hub"):
            if self.store.tables.scan(key).collect()["hub_id"].is_duplicated().any():
                self.broken.append(key)


def contents(store: Store) -> dict[str, str]:
    """What has to be equal: bytes, and the ledger but for who was first to find out."""
    folder, ledger = store.blobs.folder, Ledger(store=store)
    found = {
        key: hashlib.sha256(folder.read(key)).hexdigest()
        for part in FOLDERS
        for key in folder.keys(part)
    }
    for family in ledger.families():
        found[f"ledger/{family}"] = frame_digest(ledger.read(family), ignoring=("reused",))
    return found


@dataclass
class Kills:
    """Kills a plan's steps at random moments, over and over, until there were enough."""

    worker: Worker
    steps: list[dict[str, Any]]
    roots: tuple[str, str]
    caches: Path
    options: dict[str, Any]
    in_mid_file: bool = False  # at least one kill has to hit where a file is half there
    seed: int = 0

    def run(self, num_kills: int) -> str:
        """Return what happened; an undisturbed run of the same steps is the measure."""
        calm, rough = [
            Store.open(root, storage_options=self.options, cache=self.caches / "reader")
            for root in self.roots
        ]
        seconds, expected = [], []
        for step in self.steps:
            seconds.append(self._do(step, 0)[1])
            expected.append(contents(calm))
        generator = random.Random(self.seed)
        reader = Reader(rough)
        reader.start()
        place = num_killed = num_mid_file = num_rounds = 0
        is_enough = is_whole = False
        while not (is_enough and is_whole):
            moment = generator.uniform(0.0, 1.1 * seconds[place])
            status, took = self._do(self.steps[place], 1, None if is_enough else moment)
            num_killed += status == signal.SIGKILL
            num_mid_file += any(part.stat().st_size for part in self._parts())
            is_enough = num_killed >= num_kills and (num_mid_file > 0 or not self.in_mid_file)
            is_whole = status == 0 and place == len(self.steps) - 1
            if status != 0:
                assert status == signal.SIGKILL
                continue
            seconds[place] = min(seconds[place], took)  # the first run was a cold start
            with reader.lock:
                assert contents(rough) == expected[place]
                assert not self._parts()
                place = (place + 1) % len(self.steps)
                num_rounds += place == 0
                if place == 0 and not is_enough:
                    self._wipe(rough, reader)
        reader.stopped.set()
        reader.join()
        assert reader.broken == []
        assert reader.num_looks >= 5
        assert num_rounds > 0
        return (
            f"{num_killed} kills, {num_mid_file} of them in the middle of a file, in {num_rounds} "
            f"rounds, each equal to the undisturbed one; the reader looked {reader.num_looks} times"
        )

    def _do(
        self, step: dict[str, Any], which: int, kill_after: float | None = None
    ) -> tuple[int, float]:
        place = {"root": self.roots[which], "cache": str(self.caches / f"cache-{which}")}
        status, seconds = self.worker.run(step | place | {"options": self.options}, kill_after)
        assert kill_after is not None or status == 0
        return status, seconds

    def _parts(self) -> list[Path]:
        is_remote = self.roots[1].startswith("s3://")
        root = self.caches / "cache-1" if is_remote else Path(self.roots[1])
        return list((root / ".tmp" / "parts").glob("*"))

    def _wipe(self, store: Store, reader: Reader) -> None:
        folder = store.blobs.folder
        for part in (*FOLDERS, "tables"):
            for key in folder.keys(part):
                folder.remove(key)
        reader.seen.clear()
