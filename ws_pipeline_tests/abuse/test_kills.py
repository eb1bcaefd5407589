"""Work killed at any moment leaves nothing half-written, and ends like work left alone.

What is killed: the nightly run over a hub (scan, crawl, the manifests of triage, download, tables),
the download of files that take longer to come than to start, and the packing of models in groups.
``-m slow -s`` shows the counts.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.server import serve_app_in_thread, serve_in_thread
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.hub.server.simulation_routes import make_simulation_app
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.abuse.kills import Kills, Worker, start_worker
from ws_pipeline_tests.hub.scripted_hub import connect, make_weights, write_repo
from ws_pipeline_tests.storage.s3_server import BUCKET, S3Server
from ws_pipeline_tests.weights.safetensors_bytes import write_model

NUM_FILES = 4
NUM_ROWS = 60_000
"""Of weights: files of 2.6 MB, which take longer to come than to start."""

NUM_PACKED = 36
"""Models that are packed; every ninth is larger than what is read whole."""

Steps = list[dict[str, Any]]


@pytest.fixture
def worker() -> Iterator[Worker]:
    with start_worker() as worker:
        yield worker


@pytest.fixture
def download(tmp_path: Path) -> Iterator[Steps]:
    """One step: large files of a family whose listing is known."""
    hub = tmp_path / "hub"
    for number in range(NUM_FILES):
        weights = make_weights(number, rows=NUM_ROWS + number)
        write_repo(hub, f"zoo/m{number}", weights=weights, created=number)
    with serve_in_thread(hub) as endpoint:
        ledger = Ledger(store=Store.open(tmp_path / "listing"))
        now = datetime(2026, 11, 1, tzinfo=UTC)
        frame = crawl_family(connect(endpoint), ledger, "mlp", now=now).frame
        frame.write_parquet(tmp_path / "repos.parquet")
        repos = str(tmp_path / "repos.parquet")
        yield [{"work": "download", "endpoint": endpoint, "repos": repos}]


@pytest.fixture
def nights() -> Iterator[Steps]:
    """Three steps: everything from a full scan, from a recent one, from a full one again."""
    with ExitStack() as stack:
        steps = []
        for day in range(3):
            hub = SimulatedHub(36, seed=3, num_families=3, share_hostile=0.1)
            hub.advance(15 * day)
            endpoint = stack.enter_context(serve_app_in_thread(make_simulation_app(hub)))
            steps.append({"work": "day", "endpoint": endpoint, "day": day, "full": day != 1})
        yield steps


@pytest.fixture
def packing(tmp_path: Path) -> Steps:
    """One step: a family of small models of one architecture, and a few large ones, is packed."""
    rng = np.random.default_rng(0)
    rows, folders = [], []
    for number in range(NUM_PACKED):
        shape = (40, 30) if number % 9 else (300, 400)
        folder = tmp_path / "hub" / str(number)
        tensors = {"fc.weight": rng.standard_normal(shape).astype(np.float32)}
        write_model(folder / "model.safetensors", tensors)
        folders.append(str(folder))
        row = {"hub_id": f"id{number}", "repo_id": f"zoo/m{number}", "revision": "r"}
        rows.append(row | {"accepted": True, "manifest": f"files/id{number}/r/1"})
    pl.DataFrame(rows).write_parquet(tmp_path / "files.parquet")
    files = str(tmp_path / "files.parquet")
    return [{"work": "pack", "files": files, "folders": folders, "group": NUM_PACKED // 3}]


def kill(
    worker: Worker, steps: Steps, folder: Path, num_kills: int, server: S3Server | None = None
) -> None:
    root = f"s3://{BUCKET}/{folder.name}" if server else str(folder)
    kills = Kills(
        worker=worker,
        steps=steps,
        roots=(f"{root}/calm", f"{root}/rough"),
        caches=folder,
        options=server.storage_options if server else {},
        in_mid_file=steps[0]["work"] == "download",
    )
    print(kills.run(num_kills))  # noqa: T201 - the figures


def test_nights_that_are_killed_again_and_again_end_like_those_left_alone(
    worker: Worker, nights: Steps, tmp_path: Path
) -> None:
    kill(worker, nights, tmp_path, 6)


def test_a_download_killed_again_and_again_ends_like_one_left_alone(
    worker: Worker, download: Steps, tmp_path: Path
) -> None:
    kill(worker, download, tmp_path, 12)


def test_packing_killed_again_and_again_ends_like_packing_left_alone(
    worker: Worker, packing: Steps, tmp_path: Path
) -> None:
    kill(worker, packing, tmp_path, 8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_of_packing(worker: Worker, packing: Steps, tmp_path: Path) -> None:
    kill(worker, packing, tmp_path, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_of_packing_over_an_object_store(
    worker: Worker, packing: Steps, tmp_path: Path, s3_server: S3Server
) -> None:
    kill(worker, packing, tmp_path, 20, s3_server)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_of_nights(worker: Worker, nights: Steps, tmp_path: Path) -> None:
    kill(worker, nights, tmp_path, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_of_a_download(worker: Worker, download: Steps, tmp_path: Path) -> None:
    kill(worker, download, tmp_path, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_of_nights_over_an_object_store(
    worker: Worker, nights: Steps, tmp_path: Path, s3_server: S3Server
) -> None:
    kill(worker, nights, tmp_path, 40, s3_server)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_of_a_download_over_an_object_store(
    worker: Worker, download: Steps, tmp_path: Path, s3_server: S3Server
) -> None:
    kill(worker, download, tmp_path, 30, s3_server)
