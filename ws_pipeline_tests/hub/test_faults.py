"""From crawl to files over a hub that fails at every fifth request; and what an import pulls in."""

import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.download import download_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.selection import SelectionPolicy, select_family
from ws_pipeline.hub.server import make_app, serve_app_in_thread, serve_in_thread
from ws_pipeline.hub.triage import triage_family
from ws_pipeline.storage.store import Store
from ws_pipeline.weights.header import parse_header_record
from ws_pipeline_tests.hub.scripted_hub import connect, make_weights, write_repo

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class FaultyApp:
    """ASGI: a share of the requests gets an error, a cut body or damaged bytes of equal length."""

    def __init__(self, app: Any, *, share: float, seed: int) -> None:
        self.app, self.share = app, share
        self.random = random.Random(seed)
        self.num_faults = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        fault = self.random.choice(["500", "429", "cut", "damage"])
        if scope["type"] != "http" or self.random.random() > self.share:
            await self.app(scope, receive, send)
            return
        self.num_faults += 1
        if fault in {"500", "429"}:
            headers = [(b"retry-after", b"1"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": int(fault), "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        is_file = "/resolve/" in scope["path"]
        change: Callable[[bytes], bytes] = lambda body: body[: len(body) // 2]  # noqa: E731
        if fault == "damage" and is_file and not any(k == b"range" for k, _ in scope["headers"]):
            change = lambda body: body[:-1] + bytes([body[-1] ^ 1])  # noqa: E731

        async def send_changed(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [(k, v) for k, v in message["headers"] if k != b"content-length"]
                message = message | {"headers": kept}
            elif message.get("body"):
                message = message | {"body": change(message["body"])}
            await send(message)

        await self.app(scope, receive, send_changed)


def run_stages(endpoint: str, store: Store) -> dict[str, pl.DataFrame]:
    client, ledger = connect(endpoint), Ledger(store=store)
    repos = crawl_family(client, ledger, "mlp", now=NOW).frame
    headers = triage_family(client, store, repos, parse=parse_header_record)
    selection = select_family(repos, headers, SelectionPolicy())
    files = download_family(client, store, repos, selection, headers)
    for stage, frame in {"headers": headers, "selection": selection, "files": files}.items():
        ledger.record_verdicts("mlp", stage, frame)
    return {"repos": ledger.read("mlp"), "headers": headers, "files": files}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_hub_that_fails_often_ends_in_the_same_ledger_and_store(
    hub_folder: Path, tmp_path: Path, seed: int
) -> None:
    for number in range(12):
        write_repo(hub_folder, f"zoo/m{number}", weights=make_weights(number), created=number)
    write_repo(hub_folder, "zoo/broken", weights=b"\xff" * 100)
    quiet, stormy = Store.open(tmp_path / "quiet"), Store.open(tmp_path / "stormy")
    with serve_in_thread(hub_folder) as endpoint:
        expected = run_stages(endpoint, quiet)
    app = FaultyApp(make_app(hub_folder), share=0.2, seed=seed)
    with serve_app_in_thread(Starlette(routes=[Mount("/", app=app)])) as endpoint:
        for _ in range(6):
            found = run_stages(endpoint, stormy)
            if found["repos"]["status"].to_list() == expected["repos"]["status"].to_list():
                break
    assert app.num_faults > 2
    for name, frame in found.items():
        volatile = {"reused", "attempt"} & set(frame.columns)
        assert frame.drop(volatile).equals(expected[name].drop(volatile)), name
    for kind in ("blobs", "manifests"):
        keys = quiet.blobs.folder.keys(kind)
        assert stormy.blobs.folder.keys(kind) == keys
        assert all(stormy.blobs.folder.read(k) == quiet.blobs.folder.read(k) for k in keys)


def test_hub_and_storage_need_no_deep_learning_framework() -> None:
    code = """
import pkgutil, sys, importlib, ws_pipeline.hub, ws_pipeline.storage
for package in (ws_pipeline.hub, ws_pipeline.storage):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
heavy = {"torch", "transformers", "mlflow", "dagster", "accelerate"} & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
