"""A part belongs to one writer, survives it, and never shares its bytes with a blob."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ws_pipeline.errors import BusyError
from ws_pipeline.storage.parts import PART_AGE_SECONDS, PartFolder
from ws_pipeline.storage.store import Store

SHA = "a" * 64


def test_a_part_keeps_its_bytes_until_somebody_removes_it(tmp_path: Path) -> None:
    parts = PartFolder(root=tmp_path)
    with parts.lock(SHA) as path:
        path.write_bytes(b"first")
    with parts.lock(SHA) as path:
        assert path.read_bytes() == b"first"
        path.unlink()
    with parts.lock(SHA) as path:
        assert path.read_bytes() == b""


def test_a_second_writer_waits_and_gives_up_in_the_end(tmp_path: Path) -> None:
    parts = PartFolder(root=tmp_path)
    with parts.lock(SHA):
        with pytest.raises(BusyError, match=r"Another process is fetching aaaaaaaaaaaa\.\.\."):
            with parts.lock(SHA, wait_seconds=0.2):
                pass
        with parts.lock("b" * 64, wait_seconds=0.0):
            pass


HOLDER = """
import sys, time
from pathlib import Path
from ws_pipeline.storage.parts import PartFolder
with PartFolder(root=Path(sys.argv[1])).lock("a" * 64) as path:
    path.write_bytes(b"begun")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_writers_lock_dies_with_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        with pytest.raises(BusyError):
            with PartFolder(root=tmp_path).lock(SHA, wait_seconds=0.1):
                pass
        process.kill()
        process.wait()
    with PartFolder(root=tmp_path).lock(SHA, wait_seconds=5.0) as path:
        assert path.read_bytes() == b"begun"


def test_of_many_threads_each_finds_what_the_one_before_left(tmp_path: Path) -> None:
    parts = PartFolder(root=tmp_path)

    def count() -> None:
        with parts.lock(SHA) as path:
            path.write_text(str(int(path.read_text() or "0") + 1))
            if path.read_text() == "3":
                path.unlink()  # those that wait must notice, and start a new one

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with parts.lock(SHA) as path:
        assert path.read_text() == "2"


def test_a_part_that_is_a_blobs_second_name_is_let_go(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    data = b"published"
    sha256 = hashlib.sha256(data).hexdigest()
    with store.blobs.parts.lock(sha256) as path:
        path.write_bytes(data)
        store.blobs.put_file(path, sha256=sha256)
        # Killed here: the part was published, and not yet removed.
    with store.blobs.parts.lock(sha256) as path:
        assert path.read_bytes() == b""
        path.write_bytes(b"something else")
    assert store.blobs.read(sha256) == data


def test_parts_are_swept_after_a_week_but_not_from_under_a_writer(tmp_path: Path) -> None:
    parts = PartFolder(root=tmp_path)
    with parts.lock(SHA) as old, parts.lock("b" * 64) as fresh:
        old.write_bytes(b"x")
        fresh.write_bytes(b"x")
    os.utime(old, (0, 0))
    with parts.lock(SHA, wait_seconds=0.0):
        os.utime(old, (0, 0))
        assert parts.sweep(now=time.time()) == 0
    Store.open(tmp_path)
    assert not old.exists()
    assert fresh.exists()
    assert parts.sweep(now=time.time() + PART_AGE_SECONDS + 60) == 1


def test_the_parts_of_a_remote_store_lie_in_its_cache(store: Store, tmp_path: Path) -> None:
    data = os.urandom(1000)
    sha256 = hashlib.sha256(data).hexdigest()
    with store.blobs.parts.lock(sha256) as path:
        path.write_bytes(data)
        assert path.is_relative_to(tmp_path)
        store.blobs.put_file(path, sha256=sha256)
        path.unlink()
    assert store.blobs.read(sha256) == data


def test_a_removed_blob_is_gone_with_its_copy(store: Store) -> None:
    ref = store.blobs.put_bytes(b"x" * 100)
    path = store.blobs.local_path(ref.sha256)
    store.blobs.remove(ref.sha256)
    assert not store.blobs.exists(ref.sha256)
    assert not path.exists()
    store.blobs.remove(ref.sha256)
    assert store.blobs.put_bytes(b"x" * 100) == ref


def test_a_part_that_is_not_wanted_is_discarded_but_not_from_under_a_writer(tmp_path: Path) -> None:
    parts = PartFolder(root=tmp_path)
    parts.discard(SHA)
    with parts.lock(SHA) as path:
        path.write_bytes(b"x")
        parts.discard(SHA)
        assert path.exists()
    parts.discard(SHA)
    assert not path.exists()
