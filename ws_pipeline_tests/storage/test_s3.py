import os
import tempfile
from pathlib import Path

import pytest

from ws_pipeline.errors import StorageError
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.storage.s3_server import BUCKET, KEY, SECRET, S3Server
from ws_pipeline_tests.storage.stores import open_s3


def test_a_blob_of_many_parts_is_one_object(s3_server: S3Server, tmp_path: Path) -> None:
    store = open_s3(s3_server, tmp_path)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(60 * 1024**2))
    ref = store.blobs.put_file(path)
    assert store.blobs.put_file(path) == ref
    start = 52 * 1024**2
    assert store.blobs.read_range(ref.sha256, start, 9) == path.read_bytes()[start : start + 9]
    assert store.blobs.local_path(ref.sha256).stat().st_size == ref.num_bytes


def test_endpoint_and_credentials_may_come_from_the_environment(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = Store.open(f"s3://{BUCKET}/environment", cache=tmp_path)
    store.manifests.create("a/b/c/1", {"a": 1})
    assert open_s3(s3_server, tmp_path).root != store.root
    assert store.manifests.read("a/b/c/1") == {"a": 1}


def test_wrong_credentials_are_one_clear_error(s3_server: S3Server, tmp_path: Path) -> None:
    options = {**s3_server.storage_options, "key": "someone-else"}
    store = Store.open(f"s3://{BUCKET}/x", storage_options=options, cache=tmp_path)
    with pytest.raises(StorageError, match=f"s3://{BUCKET}/x"):
        store.manifests.create("a/b/c/1", {})


def test_an_endpoint_that_does_not_answer_is_one_clear_error(tmp_path: Path) -> None:
    options = {
        "key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
    }  # fmt: skip
    store = Store.open("s3://bucket/x", storage_options=options, cache=tmp_path)
    with pytest.raises(StorageError, match=r"object store failed at s3://bucket/x.*Check the endp"):
        store.manifests.read("a/b/c/1")


def test_folders_of_killed_writers_are_swept_after_a_day(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = open_s3(s3_server, tmp_path)
    with store.blobs.temporary_path() as fresh:
        orphan = fresh.parent.with_name("ws-pipeline-object-orphan")
        orphan.mkdir()
        (orphan / "object").write_bytes(b"left")
        os.utime(orphan, (0, 0))
        open_s3(s3_server, tmp_path)
        assert fresh.parent.exists()
        assert not orphan.exists()
