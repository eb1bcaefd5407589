"""Scan, crawl, triage and download of a simulated hub: hostile, faulty, and changing meanwhile."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from ws_pipeline.hub.server import serve_app_in_thread
from ws_pipeline.hub.server.faults import FaultInjector
from ws_pipeline.hub.server.hostile import HOSTILE_KINDS
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.hub.server.simulation_files import SimulatedFiles
from ws_pipeline.hub.server.simulation_routes import make_simulation_app
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.hub.simulated_stages import (
    count_by,
    run_stages,
    run_until_settled,
    stored_bytes,
)

REASONS = {
    "repo_id": {"malformed_row"},
    "file_name": {"unsafe_file_name"},
    "index": {"unsafe_file_name"},
    "tensor_name": {"header_bad_name"},
    "header": {"header_too_large"},
}
"""Of each kind of hostile repo."""

HONEST = {"", "disabled", "pickle_only", "adapter", "quantized", "duplicate_files", "too_small"}


def make_hub(num_repos: int, *, seed: int) -> SimulatedHub:
    return SimulatedHub(num_repos, seed=seed, num_families=6, share_hostile=0.08)


def test_hostile_repos_end_in_rows_with_their_own_reasons(tmp_path: Path) -> None:
    hub, store = make_hub(260, seed=5), Store.open(tmp_path / "store")
    kinds = {hub.row(i)["_id"]: hub.kind(i) for i in range(260)}
    with serve_app_in_thread(make_simulation_app(hub)) as endpoint:
        ledger = run_stages(endpoint, store, day=0)
    assert ledger.height == 260
    found: dict[str, Counter[str]] = {kind: Counter() for kind in HOSTILE_KINDS}
    for row in ledger.to_dicts():
        kind = kinds.get(row["hub_id"])
        if kind is None or kind.hostile == "repo_id":
            found["repo_id"][row["reason"]] += 1  # its id is one that the quarantine made up
        elif kind.hostile is not None:
            found[kind.hostile][row["reason"]] += 1
        else:
            assert row["reason"] in HONEST, row
    for kind, reasons in found.items():
        assert set(reasons) == REASONS[kind], (kind, reasons)
    assert {path.name for path in tmp_path.iterdir()} <= {"store", "hf-home"}
    assert count_by(ledger, "status")["stored"] > 50


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]
)
def test_a_hub_that_fails_at_every_fifth_request_ends_in_the_same_ledger_and_store(
    tmp_path: Path, seed: int
) -> None:
    hub = make_hub(240, seed=seed)
    quiet, stormy = Store.open(tmp_path / "quiet"), Store.open(tmp_path / "stormy")
    app: Any = make_simulation_app(hub)
    with serve_app_in_thread(app) as endpoint:
        expected = run_stages(endpoint, quiet, day=0)
    injector = FaultInjector(app, share=0.2, seed=seed, hang_seconds=0.05)
    with serve_app_in_thread(Starlette(routes=[Mount("/", app=injector)])) as endpoint:
        found, num_runs = run_until_settled(endpoint, stormy, day=0)
    assert injector.num_faults > 0.1 * injector.num_requests > 50
    assert found.equals(expected)
    for prefix in ("blobs", "manifests", "scan"):
        assert stored_bytes(stormy, prefix) == stored_bytes(quiet, prefix), prefix
    assert count_by(found, "status")["stored"] > 50
    print(f"{injector.num_faults} of {injector.num_requests} requests, {num_runs} runs")  # noqa: T201


def test_a_hub_that_changes_all_the_time_is_caught_up_with(tmp_path: Path) -> None:
    hub = make_hub(120, seed=9)
    moving, fresh = Store.open(tmp_path / "moving"), Store.open(tmp_path / "fresh")
    with serve_app_in_thread(make_simulation_app(hub, changes_per_request=0.3)) as endpoint:
        for day in range(2):
            run_stages(endpoint, moving, day=day, full=day == 0)
    with serve_app_in_thread(make_simulation_app(hub)) as endpoint:
        found, _ = run_until_settled(endpoint, moving, day=2)
        expected = run_stages(endpoint, fresh, day=2)
    there = found.filter(pl.col("status") != "deleted").sort("hub_id")
    expected = expected.sort("hub_id")
    assert there.drop("aliases").equals(expected.drop("aliases"))
    assert there.filter(pl.col("aliases").list.len() > 0).height > 2
    assert stored_bytes(fresh, "blobs").items() <= stored_bytes(moving, "blobs").items()


class PushInMidDownload:
    """ASGI: cuts the first file that is sent whole, and lets a change happen before the rest."""

    def __init__(self, hub: SimulatedHub) -> None:
        self.app, self.hub, self.is_cut = make_simulation_app(hub), hub, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_file = scope.get("path", "").endswith(".safetensors")
        if self.is_cut or not is_file or any(name == b"range" for name, _ in scope["headers"]):
            await self.app(scope, receive, send)
            return
        self.is_cut = True

        async def send_half(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [(k, v) for k, v in message["headers"] if k != b"content-length"]
                message = message | {"headers": kept}
            elif message.get("body"):
                message = message | {"body": message["body"][: len(message["body"]) // 2]}
            await send(message)

        await self.app(scope, receive, send_half)
        self.hub.advance(1)


def find_seed(*, is_rewritten: bool) -> int:
    """A hub of one plain repo, whose first change is a push that keeps its history, or does not."""
    for seed in itertools.count():
        hub = SimulatedHub(1, seed=seed, num_families=1, share_hostile=0.0)
        old, kind = hub.sha(0), hub.kind(0)
        is_open = not (hub.is_disabled(0) or hub.gated(0) or hub.is_private(0))
        hub.advance(1)
        if (
            hub.state(0).num_pushes == 1
            and is_open
            and (kind.format, kind.relation) == ("safetensors", "")
            and (hub.find_push(0, old) is None) == is_rewritten
        ):
            return seed
    raise AssertionError


@pytest.mark.parametrize("is_rewritten", [False, True])
def test_a_revision_that_changes_in_mid_download_is_never_mixed_with_the_next(
    tmp_path: Path, is_rewritten: bool
) -> None:
    seed = find_seed(is_rewritten=is_rewritten)
    hub = SimulatedHub(1, seed=seed, num_families=1, share_hostile=0.0)
    store = Store.open(tmp_path / "store")
    digests = [_weights_sha256(hub, push) for push in (0, 1)]
    old = hub.sha(0)
    app = PushInMidDownload(hub)
    with serve_app_in_thread(Starlette(routes=[Mount("/", app=app)])) as endpoint:
        first = run_stages(endpoint, store, day=0).row(0, named=True)
        assert app.is_cut
        second = run_stages(endpoint, store, day=1).row(0, named=True)
    assert first["revision"] == old
    expected = ("refused", "not_found") if is_rewritten else ("stored", "")
    assert (first["status"], first["reason"]) == expected
    assert (second["status"], second["revision"]) == ("stored", hub.sha(0))
    stored = {key.rpartition("/")[2] for key in store.blobs.folder.keys("blobs")}
    assert stored & set(digests) == {digests[1]} if is_rewritten else set(digests) <= stored
    for sha256 in stored:
        store.blobs.read(sha256)


def _weights_sha256(hub: SimulatedHub, push: int) -> str:
    files = SimulatedFiles(hub).read(0, push)
    return next(file.digest.sha256 for path, file in files.items() if "safetensors" in path)
