"""An embedded hub in a folder, a hub whose answers the test writes, and a store on disk or S3."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.server import serve_in_thread
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.storage.stores import store

__all__ = ["endpoint", "hub_folder", "ledger", "scripted", "scripted_server", "store"]
from ws_pipeline_tests.hub.scripted_hub import ScriptedHub


@pytest.fixture(scope="module")
def scripted_server() -> Iterator[ScriptedHub]:
    with ScriptedHub().serve() as hub:
        yield hub


@pytest.fixture
def scripted(scripted_server: ScriptedHub) -> ScriptedHub:
    scripted_server.reset()
    return scripted_server


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    return folder


@pytest.fixture
def endpoint(hub_folder: Path) -> Iterator[str]:
    with serve_in_thread(hub_folder) as url:
        yield url


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store=store)
