"""Kill -9 at random moments of a scan, while a reader looks on."""

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ws_pipeline.hub.scan_book import ScanBook
from ws_pipeline.hub.scan_rows import SCAN_SCHEMA
from ws_pipeline_tests.hub.scan_hubs import make_hub, open_book, scan, serve, stored

DAYS = ((0, "full"), (1, "recent"), (2, "full"))
NUM_REPOS = 200


class Reader(threading.Thread):
    """Reads families all along; every table it sees has to be whole, and none may lose rows."""

    def __init__(self, book: ScanBook) -> None:
        super().__init__(daemon=True)
        self.book = book
        self.num_reads = 0
        self.broken: list[str] = []
        self.stop = threading.Event()

    def run(self) -> None:
        sizes: dict[str, int] = {}
        while not self.stop.is_set():
            for family in list(self.book.editions.last().families):
                try:
                    self.look_at(family, sizes)
                except Exception as error:  # noqa: BLE001 - the test shows it
                    self.broken.append(repr(error))
                if self.stop.is_set():
                    return
            time.sleep(0.01)

    def look_at(self, family: str, sizes: dict[str, int]) -> None:
        frame = self.book.read(family)
        self.num_reads += 1
        if dict(frame.schema) != SCAN_SCHEMA or frame["hub_id"].is_duplicated().any():
            self.broken.append(f"{family}: {frame.schema}")
        if frame.height < 0.8 * sizes.get(family, 0):  # a few repos do move to other families
            self.broken.append(f"{family}: {frame.height} rows after {sizes[family]}")
        sizes[family] = max(frame.height, sizes.get(family, 0))


def run_until_done(endpoint: str, store: Path, day: int, kind: str, moments: random.Random) -> int:
    """Start the worker and kill it, again and again, until it ends by itself; return how often."""
    command = [sys.executable, "-m", "ws_pipeline_tests.hub.scan_worker"]
    command += [endpoint, str(store), str(day), kind]
    for num_kills in range(100):
        worker = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            # Beyond the imports, where there is something to lose; later and later, so it ends.
            seconds = moments.uniform(0.0, 0.3) * (1 + num_kills / 4)
            _wait_for_work(worker, store)
            _, errors = worker.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.communicate()
            continue
        assert worker.returncode == 0, errors.decode()
        return num_kills
    raise AssertionError("the worker never got to the end")


def _wait_for_work(worker: "subprocess.Popen[bytes]", store: Path) -> None:
    """Wait until the worker has touched the store."""
    before = _touched(store)
    while worker.poll() is None and _touched(store) == before:
        time.sleep(0.005)


def _touched(store: Path) -> int:
    folders = [store / "scan" / "editions", store / ".tmp"]
    return max((f.stat().st_mtime_ns for f in folders if f.exists()), default=0)


def check_kills(tmp_path: Path, seed: int, *, num_days: int = len(DAYS)) -> int:
    """Run all days on two equal hubs, undisturbed and killed; return the number of kills."""
    moments = random.Random(seed)
    quiet, killed = open_book(tmp_path / "quiet"), tmp_path / "killed"
    hub = make_hub(NUM_REPOS, seed=seed)
    num_kills = 0
    reader = Reader(open_book(killed))
    reader.start()
    with serve(hub) as endpoint:
        for day, kind in DAYS[:num_days]:
            scan(endpoint, quiet, day=day, full=kind == "full")
            num_kills += run_until_done(endpoint, killed, day, kind, moments)
            assert stored(open_book(killed)) == stored(quiet), f"day {day}, {num_kills} kills"
            hub.advance(50)
    reader.stop.set()
    reader.join()
    assert reader.broken == []
    assert reader.num_reads > 0
    return num_kills


def test_a_scan_that_is_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    assert check_kills(tmp_path, seed=1, num_days=2) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_hundred_kills_lose_nothing(tmp_path: Path, seed: int) -> None:
    assert check_kills(tmp_path, seed=seed) >= 1
