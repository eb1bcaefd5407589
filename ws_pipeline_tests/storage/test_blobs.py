import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_pipeline.errors import IntegrityError, MissingInputError, RefusedError, StorageError
from ws_pipeline.storage.blobs import BlobRef, blob_key
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.store import Store

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


def test_bytes_come_back_under_their_digest(store: Store) -> None:
    assert store.blobs.put_bytes(DATA) == BlobRef(sha256=SHA256, num_bytes=len(DATA))
    assert store.blobs.read(SHA256) == DATA
    assert store.blobs.num_bytes(SHA256) == len(DATA)


def test_the_same_bytes_twice_are_one_blob(store: Store) -> None:
    assert store.blobs.put_bytes(DATA) == store.blobs.put_bytes(DATA)
    assert store.blobs.folder.keys("blobs") == [blob_key(SHA256)]


def test_an_empty_blob_is_a_blob(store: Store) -> None:
    ref = store.blobs.put_bytes(b"")
    assert store.blobs.read(ref.sha256) == b""
    assert store.blobs.read_range(ref.sha256, 0, 0) == b""


def test_a_file_is_copied_and_left_alone(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DATA)
    assert store.blobs.put_file(path, sha256=SHA256).sha256 == SHA256
    assert path.read_bytes() == DATA
    path.write_bytes(b"changed later")
    assert store.blobs.read(SHA256) == DATA


def test_a_file_with_other_bytes_is_not_stored(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DATA + b"!")
    with pytest.raises(IntegrityError, match=r"should have sha256 .* fetch it again"):
        store.blobs.put_file(path, sha256=SHA256)
    assert not store.blobs.exists(SHA256)
    assert store.blobs.folder.keys("blobs") == []


def test_a_file_built_at_a_temporary_path_is_stored_and_the_path_is_gone(store: Store) -> None:
    with store.blobs.temporary_path() as path:
        path.write_bytes(DATA)
        ref = store.blobs.put_file(path)
    assert not path.exists()
    assert store.blobs.read(ref.sha256) == DATA


def test_what_a_writer_gets_becomes_a_blob(store: Store) -> None:
    with store.blobs.writer(len(DATA)) as out:
        out.write(DATA[:100])
        out.write(memoryview(DATA)[100:])
    assert (out.sha256, out.num_bytes) == (SHA256, len(DATA))
    assert store.blobs.read(SHA256) == DATA
    with store.blobs.writer(len(DATA)) as out:  # the same again is fine
        out.write(DATA)
    assert store.blobs.folder.keys("blobs") == [f"blobs/sha256/{SHA256[:2]}/{SHA256}"]


def test_a_writer_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with store.blobs.writer(len(DATA)) as out:
            out.write(DATA)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert not store.blobs.exists(SHA256)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_range_is_exact(store: Store) -> None:
    store.blobs.put_bytes(DATA)
    assert store.blobs.read_range(SHA256, 100, 300) == DATA[100:400]


def test_a_range_beyond_the_end_is_an_error(store: Store) -> None:
    store.blobs.put_bytes(DATA)
    with pytest.raises(StorageError):
        store.blobs.read_range(SHA256, len(DATA) - 3, 10)


def test_a_negative_range_is_refused(store: Store) -> None:
    store.blobs.put_bytes(DATA)
    with pytest.raises(RefusedError, match="must not be negative; got start -1"):
        store.blobs.read_range(SHA256, -1, 10)


def test_a_missing_blob_says_so(store: Store) -> None:
    assert not store.blobs.exists(SHA256)
    with pytest.raises(MissingInputError, match=r"There is no object at .*run the step"):
        store.blobs.read(SHA256)
    with pytest.raises(MissingInputError, match="There is no object at"):
        store.blobs.local_path(SHA256)


def test_a_local_path_holds_the_bytes(store: Store) -> None:
    store.blobs.put_bytes(DATA)
    path = store.blobs.local_path(SHA256)
    assert path.read_bytes() == DATA
    assert store.blobs.local_path(SHA256) == path


@pytest.mark.parametrize("name", ["", "abc", "../" * 22, SHA256.upper(), SHA256 + "\n", "g" * 64])
def test_a_name_that_is_no_digest_is_refused(name: str) -> None:
    with pytest.raises(RefusedError, match="64 lower-case hexadecimal digits"):
        blob_key(name)


def test_a_blob_that_was_damaged_where_it_lies_is_noticed(store: Store) -> None:
    store.blobs.put_bytes(DATA)
    with store.blobs.temporary_path() as path:
        path.write_bytes(b"rot")
        store.blobs.folder.replace_file(blob_key(SHA256), path)
    with pytest.raises(IntegrityError, match="should have sha256"):
        store.blobs.read(SHA256)


@given(data=st.binary(max_size=4096), cut=st.integers(0, 4096))
def test_two_ranges_make_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int
) -> None:
    blobs = Store.open(tmp_path_factory.getbasetemp() / "ranges").blobs
    ref = blobs.put_bytes(data)
    cut = min(cut, len(data))
    first = blobs.read_range(ref.sha256, 0, cut)
    assert first + blobs.read_range(ref.sha256, cut, len(data) - cut) == data


def test_a_local_blob_is_linked_from_the_temporary_path_without_a_copy(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with store.blobs.temporary_path() as path:
        path.write_bytes(DATA)
        inode = path.stat().st_ino
        store.blobs.put_file(path)
    assert isinstance(store.blobs.folder, LocalFolder)
    assert store.blobs.local_path(SHA256).stat().st_ino == inode


def test_a_store_that_was_emptied_has_no_keys(store: Store) -> None:
    ref = store.blobs.put_bytes(b"x")
    assert len(store.blobs.folder.keys("blobs")) == 1
    store.blobs.remove(ref.sha256)
    assert store.blobs.folder.keys("blobs") == []
