"""Stores for tests: a folder, and a real S3 protocol server that starts when it is first needed."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_pipeline.storage.store import Store
from ws_pipeline_tests.storage.s3_server import BUCKET, S3Server, serve_s3


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.open(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3_server")
    return open_s3(server, tmp_path)


def open_s3(server: S3Server, tmp_path: Path) -> Store:
    return Store.open(
        f"s3://{BUCKET}/{uuid.uuid4().hex}",
        storage_options=server.storage_options,
        cache=tmp_path / "cache",
    )
