import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from ws_pipeline.errors import NoSpaceError, RefusedError, StorageError
from ws_pipeline.storage import local
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.objects import disk_errors
from ws_pipeline.storage.store import Store


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_below_the_reserve_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)
    full = Usage(100, 95, local.RESERVE_BYTES + 10)
    monkeypatch.setattr(local.shutil, "disk_usage", lambda _: full)
    store.blobs.put_bytes(b"0123456789")
    with pytest.raises(NoSpaceError, match=r"MB free; .* more is needed. Free some space or point"):
        store.blobs.put_bytes(b"0123456789!")
    assert len(store.blobs.folder.keys("blobs")) == 1


def test_a_full_disk_is_one_clear_error() -> None:
    with pytest.raises(NoSpaceError, match=r"The disk is full: t could not be written. Free some"):
        with disk_errors("t"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(NoSpaceError, match="The disk is full"):
        with disk_errors("t"):
            raise pl.exceptions.ComputeError("No space left on device (os error 28)")
    with pytest.raises(StorageError, match=r"t could not be written: .*Permission"):
        with disk_errors("t"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB, where mounting one is allowed."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs privileges that this machine does not give")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_leaves_nothing_behind(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "RESERVE_BYTES", -(10**9))  # only the disk itself says no
    store = Store.open(tiny_disk)
    with pytest.raises(NoSpaceError, match="The disk is full"):
        store.blobs.put_bytes(os.urandom(2_000_000))
    with pytest.raises(NoSpaceError, match="The disk is full"):
        store.tables.write("t", pl.DataFrame({"a": os.urandom(2_000_000).hex()}))
    assert store.blobs.folder.keys("blobs") == []
    assert not store.tables.exists("t")
    assert list((tiny_disk / ".tmp").iterdir()) == []


def test_orphans_of_killed_writers_are_swept_after_a_day(tmp_path: Path) -> None:
    folder = LocalFolder(root=str(tmp_path))
    with folder.temporary_path() as fresh:
        fresh.write_bytes(b"being written")
        orphan = fresh.with_name("1-orphan")
        orphan.write_bytes(b"left")
        os.utime(orphan, (0, 0))
        assert folder.sweep_orphans(now=time.time()) == 1
        assert fresh.exists()
        assert not orphan.exists()
        orphan.write_bytes(b"left")
        os.utime(orphan, (0, 0))
        Store.open(tmp_path)
        assert not orphan.exists()


WRITER = """
import sys, os
from pathlib import Path
from ws_pipeline.storage.store import Store
store = Store.open(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.blobs.put_bytes(number.to_bytes(4, "little") * 250_000)
    store.manifests.create(f"m/{number}/r/1", {"number": number, "text": "x" * 10_000})
"""


def test_a_killed_writer_leaves_only_whole_objects(tmp_path: Path) -> None:
    for delay in (0.02, 0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
    store = Store.open(tmp_path)
    keys = store.blobs.folder.keys("blobs")
    assert keys
    for key in keys:
        assert len(store.blobs.read(key.split("/")[-1])) == 1_000_000
    for key in store.manifests.folder.keys("manifests"):
        stored = store.manifests.read(key.removeprefix("manifests/").removesuffix(".json"))
        assert len(stored["text"]) == 10_000


def test_a_store_is_a_folder_or_a_bucket(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="local folder or s3://bucket/prefix; got 'gs://b/p'"):
        Store.open("gs://b/p")
    with pytest.raises(RefusedError, match=r"An S3 store needs a bucket, as in .*; got 's3://'"):
        Store.open("s3://")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"root must be a folder, but .*file is a file"):
        Store.open(tmp_path / "file")
    with pytest.raises(StorageError, match="could not be written"):
        Store.open(tmp_path / "file" / "below")


def test_opening_a_store_twice_is_the_same_store(tmp_path: Path) -> None:
    ref = Store.open(tmp_path).blobs.put_bytes(b"x")
    assert Store.open(str(tmp_path)).blobs.read(ref.sha256) == b"x"


def test_a_removed_object_is_gone_and_removing_it_again_is_fine(store: Store) -> None:
    folder = store.tables.folder
    folder.create_bytes("scan/a", b"1")
    folder.create_bytes("scan/b", b"2")
    for _ in range(2):
        folder.remove("scan/a")
    assert folder.keys("scan") == ["scan/b"]
    assert not folder.exists("scan/a")
    assert folder.create_bytes("scan/a", b"3")
