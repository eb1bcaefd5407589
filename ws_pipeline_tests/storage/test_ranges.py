"""Ranges: exact bytes from local and remote blobs, within stated bounds of disk and descriptors."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import ConfigError, MissingInputError, NoSpaceError, StorageError
from ws_pipeline.storage import local as local_folder
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.ranges import CachedRanges, LocalRanges, open_ranges, read_range
from ws_pipeline.storage.store import Store

BLOCK = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class CountingFolder(LocalFolder):
    """A local folder that is read like a remote one, and keeps a record of it."""

    requests: list[tuple[int, int]] = field(default_factory=list)

    def read_range(self, key: str, start: int, num_bytes: int) -> bytes:
        self.requests.append((start, num_bytes))
        return LocalFolder(root=self.root).read_range(key, start, num_bytes)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, bytes]]]:
    root = tmp_path_factory.mktemp("ranges")
    store = Store.open(root)
    contents = [np.random.default_rng(seed).bytes(1000 + 7 * seed) for seed in range(3)]
    return root, [(store.blobs.put_bytes(data).sha256, data) for data in contents]


def remote(root: Path, tmp_path: Path, **bounds: int) -> tuple[CachedRanges, CountingFolder]:
    folder = CountingFolder(root=str(root))
    settings = {"cache_bytes": 20 * BLOCK, "block_bytes": BLOCK} | bounds
    return CachedRanges(folder, tmp_path / "cache", **settings), folder


def test_any_store_gives_exact_ranges(store: Store) -> None:
    data = os.urandom(300_000)
    sha256 = store.blobs.put_bytes(data).sha256
    ranges = open_ranges(store.blobs)
    assert ranges.num_bytes(sha256) == len(data)
    for start, count in ((0, 1), (65_530, 12), (299_999, 1), (0, 300_000), (5, 0)):
        ranges.warm(sha256, start, count)
        assert read_range(ranges, sha256, start, count) == data[start : start + count]
    ranges.close()
    assert read_range(ranges, sha256, 7, 3) == data[7:10]
    with pytest.raises(StorageError, match="fetch it again"):
        read_range(ranges, sha256, 299_999, 2)
    with pytest.raises(MissingInputError, match="run the step that makes it first"):
        read_range(ranges, "0" * 64, 0, 1)


@given(
    reads=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 999), st.integers(0, 999), st.booleans()),
        max_size=30,
    ),
    cache_blocks=st.integers(1, 80),
)
def test_a_cache_never_changes_what_is_read_nor_exceeds_its_bound(
    blobs: tuple[Path, list[tuple[str, bytes]]],
    tmp_path: Path,
    reads: list[tuple[int, int, int, bool]],
    cache_blocks: int,
) -> None:
    root, contents = blobs
    ranges, _ = remote(root, tmp_path, cache_bytes=cache_blocks * BLOCK)
    for blob, one, other, warm in reads:
        sha256, data = contents[blob]
        start, stop = sorted((one, other))
        if warm:
            ranges.warm(sha256, start, stop - start)
        else:
            assert read_range(ranges, sha256, start, stop - start) == data[start:stop]
        assert ranges.num_cached_bytes <= cache_blocks * BLOCK
        assert os.fstat(ranges._descriptor).st_size <= cache_blocks * BLOCK


def test_adjacent_blocks_are_one_request_and_are_asked_for_once(
    blobs: tuple[Path, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    root, ((sha256, data), *_) = blobs
    ranges, folder = remote(root, tmp_path)
    assert read_range(ranges, sha256, 20, 40) == data[20:60]
    assert folder.requests == [(16, 48)]
    assert read_range(ranges, sha256, 17, 90) == data[17:107]  # only what is new
    assert folder.requests[1:] == [(64, 48)]
    ranges.warm(sha256, 16, 90)
    assert len(folder.requests) == 2
    assert ranges.num_fetched_bytes == 96


def test_what_was_used_last_stays(
    blobs: tuple[Path, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    root, ((sha256, _), *_) = blobs
    ranges, folder = remote(root, tmp_path, cache_bytes=2 * BLOCK)
    for block in (0, 1, 0, 2):  # 2 takes the place of 1
        read_range(ranges, sha256, block * BLOCK, 1)
    assert len(folder.requests) == 3
    read_range(ranges, sha256, 0, 1)
    assert len(folder.requests) == 3
    read_range(ranges, sha256, BLOCK, 1)
    assert len(folder.requests) == 4


def test_threads_that_want_the_same_block_ask_for_it_once(
    blobs: tuple[Path, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    root, ((sha256, data), *_) = blobs
    ranges, folder = remote(root, tmp_path, cache_bytes=100 * BLOCK)
    found: list[bytes] = []
    barrier = threading.Barrier(8)

    def read() -> None:
        barrier.wait()
        found.append(read_range(ranges, sha256, 0, 1000))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data[:1000]] * 8
    assert sum(size for _, size in folder.requests) == 1000


def test_a_failed_fetch_is_an_error_and_can_be_tried_again(
    blobs: tuple[Path, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    root, ((sha256, data), *_) = blobs
    ranges, _ = remote(root, tmp_path)
    ranges.num_bytes(sha256)
    hidden = root / "hidden"
    blob = LocalFolder(root=str(root)).path(f"blobs/sha256/{sha256[:2]}/{sha256}")
    blob.rename(hidden)
    with pytest.raises(MissingInputError):
        read_range(ranges, sha256, 0, 4)
    hidden.rename(blob)
    assert read_range(ranges, sha256, 0, 4) == data[:4]


def test_the_cache_leaves_no_file_behind(
    blobs: tuple[Path, list[tuple[str, bytes]]], tmp_path: Path
) -> None:
    root, ((sha256, _), *_) = blobs
    ranges, _ = remote(root, tmp_path)
    read_range(ranges, sha256, 0, 100)
    assert list((tmp_path / "cache").iterdir()) == []  # it has no name even while it is in use


def test_a_full_disk_is_said(
    blobs: tuple[Path, list[tuple[str, bytes]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, ((sha256, _), *_) = blobs
    ranges, _ = remote(root, tmp_path)
    monkeypatch.setattr(local_folder, "RESERVE_BYTES", 2**62)
    with pytest.raises(NoSpaceError, match="Free some space"):
        read_range(ranges, sha256, 0, 4)


def test_a_cache_without_room_for_a_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="room for one of 16 bytes, it is given 15"):
        remote(tmp_path, tmp_path, cache_bytes=15)


@pytest.fixture
def local(blobs: tuple[Path, list[tuple[str, bytes]]]) -> Iterator[LocalRanges]:
    ranges = LocalRanges(LocalFolder(root=str(blobs[0])), max_open_files=2)
    yield ranges
    ranges.close()


def test_descriptors_stay_within_their_bound(
    blobs: tuple[Path, list[tuple[str, bytes]]], local: LocalRanges
) -> None:
    for turn in range(9):
        sha256, data = blobs[1][turn % 3]
        assert read_range(local, sha256, turn, 50) == data[turn : turn + 50]
        assert len(local._descriptors) <= 2
