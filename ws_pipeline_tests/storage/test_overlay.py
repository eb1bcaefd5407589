"""An overlay reads as if it were one folder, and leaves the base as it was."""

from pathlib import Path

import pytest

from ws_pipeline.errors import MissingInputError
from ws_pipeline.storage.local import LocalFolder
from ws_pipeline.storage.objects import ObjectFolder
from ws_pipeline.storage.overlay import OverlayFolder


@pytest.fixture
def base(tmp_path: Path) -> LocalFolder:
    folder = LocalFolder(root=str(tmp_path / "base"))
    folder.create_bytes("a/kept", b"kept")
    folder.create_bytes("a/gone", b"gone")
    return folder


def contents(folder: ObjectFolder) -> dict[str, bytes]:
    return {key: folder.read(key) for key in folder.keys("a")}


def test_changes_are_seen_above_and_never_below(base: LocalFolder, tmp_path: Path) -> None:
    before = contents(base)
    overlay = OverlayFolder(base=base, top=LocalFolder(root=str(tmp_path / "top")))
    assert isinstance(overlay, ObjectFolder)
    assert contents(overlay) == before
    assert overlay.create_bytes("a/new", b"new")
    assert not overlay.create_bytes("a/kept", b"other")
    overlay.remove("a/gone")
    with overlay.temporary_path() as path:
        path.write_bytes(b"replaced")
        overlay.replace_file("a/kept", path)
    assert contents(overlay) == {"a/kept": b"replaced", "a/new": b"new"}
    assert (overlay.num_bytes("a/kept"), overlay.read_range("a/new", 1, 2)) == (8, b"ew")
    with pytest.raises(MissingInputError, match="no object"):
        overlay.read("a/gone")
    assert overlay.create_bytes("a/gone", b"again")
    assert overlay.read("a/gone") == b"again"
    assert contents(base) == before
