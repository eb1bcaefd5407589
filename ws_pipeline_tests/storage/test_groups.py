"""Several objects published together: each whole, none named before its bytes are on the disk."""

import os
from pathlib import Path

import pytest

from ws_pipeline.errors import ManifestConflictError, NoSpaceError, StorageError
from ws_pipeline.storage import flush, local
from ws_pipeline.storage.blobs import blob_key
from ws_pipeline.storage.flush import MIN_TOGETHER
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.overlay import OverlayFolder
from ws_pipeline.storage.store import Store

MANY = 3 * MIN_TOGETHER


@pytest.mark.parametrize("count", [0, 1, MANY])
def test_blobs_of_a_group_are_those_stored_one_by_one(store: Store, count: int) -> None:
    contents = [bytes([number]) * number for number in range(count)]
    refs = store.blobs.put_many(contents)
    assert [store.blobs.read(ref.sha256) for ref in refs] == contents
    assert refs == [store.blobs.put_bytes(data) for data in contents]
    assert len(store.blobs.folder.keys("blobs")) == count


def test_what_is_there_already_is_left_as_it_is(store: Store) -> None:
    folder = store.blobs.folder
    folder.create_bytes("a/1", b"old")
    assert folder.create_many({"a/1": b"new", "a/2": b"new"}) == {"a/2"}
    assert (folder.read("a/1"), folder.read("a/2")) == (b"old", b"new")


def test_the_same_blob_twice_in_a_group_is_one(store: Store) -> None:
    first, second = store.blobs.put_many([b"x", b"x"])
    assert first == second
    assert store.blobs.folder.keys("blobs") == [blob_key(first.sha256)]


def test_manifests_of_a_group_are_create_only(store: Store) -> None:
    payloads = {f"s/m{number}/r/1": {"n": number} for number in range(MANY)}
    store.manifests.create_many(payloads)
    store.manifests.create_many(payloads)  # the same again is fine
    assert {key: store.manifests.read(key) for key in store.manifests.keys("s")} == payloads
    with pytest.raises(ManifestConflictError, match="s/m1/r/1 exists with other content"):
        store.manifests.create_many({"s/m1/r/1": {"n": 7}, "s/new/r/1": {}})
    assert store.manifests.read("s/m1/r/1") == {"n": 1}
    assert store.manifests.exists("s/new/r/1")


@pytest.mark.parametrize("has_syncfs", [True, False])
def test_no_object_has_its_name_before_all_bytes_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_syncfs: bool
) -> None:
    folder = LocalFolder(root=str(tmp_path))
    log: list[str] = []
    find, link, fsync = flush._find_syncfs, os.link, os.fsync

    def syncfs(descriptor: int) -> int:
        log.append("flush")
        return int(find()(descriptor))

    monkeypatch.setattr(flush, "_find_syncfs", lambda: syncfs if has_syncfs else None)
    monkeypatch.setattr(os, "fsync", lambda number: (log.append("flush"), fsync(number)))
    monkeypatch.setattr(os, "link", lambda *paths: (log.append("link"), link(*paths)))
    folder.create_many({f"a/{number}": b"x" for number in range(MANY)})
    first, last = log.index("link"), len(log) - log[::-1].index("link")
    assert log[first:last] == ["link"] * MANY
    # All bytes before the first name, and the folder of the names after the last.
    assert log[:first] == ["flush"] * (1 if has_syncfs else MANY)
    assert log[last:] == ["flush"]


def test_a_flush_that_fails_names_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LocalFolder(root=str(tmp_path))
    monkeypatch.setattr(flush, "_find_syncfs", lambda: lambda _: -1)
    with pytest.raises(StorageError, match="a group of objects could not be written"):
        folder.create_many({f"a/{number}": b"x" for number in range(MANY)})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_group_without_room_is_refused_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LocalFolder(root=str(tmp_path))
    monkeypatch.setattr(local, "RESERVE_BYTES", 2**62)
    with pytest.raises(NoSpaceError, match="Free some space"):
        folder.create_many({"a/1": b"x"})


def test_a_group_over_a_base_goes_to_the_top(tmp_path: Path) -> None:
    base, top = (LocalFolder(root=str(tmp_path / name)) for name in ("base", "top"))
    base.create_bytes("a/1", b"old")
    base.create_bytes("a/2", b"gone")
    folder = OverlayFolder(base=base, top=top)
    folder.remove("a/2")
    assert folder.create_many({f"a/{n}": b"new" for n in (1, 2, 3)}) == {"a/2", "a/3"}
    assert [folder.read(f"a/{n}") for n in (1, 2, 3)] == [b"old", b"new", b"new"]
    assert base.keys("a") == ["a/1", "a/2"]
