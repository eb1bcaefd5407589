from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ws_pipeline.errors import MissingInputError, RefusedError
from ws_pipeline.storage.store import Store

FRAME = pl.DataFrame(
    {
        "hub_id": ["a", "b"],
        "tags": [["x"], []],
        "layers": [[{"name": "w", "rows": 3}], None],
        "loss": [0.5, float("nan")],
    }
)


def test_a_table_comes_back_as_it_was(store: Store) -> None:
    assert store.tables.write("hub/repos/bert", FRAME) == 2
    assert_frame_equal(store.tables.scan("hub/repos/bert").collect(), FRAME)


def test_a_lazy_frame_is_written_too(store: Store) -> None:
    assert store.tables.write("hub/repos/bert", FRAME.lazy().filter(pl.col("hub_id") == "a")) == 1
    assert store.tables.scan("hub/repos/bert").collect().height == 1


def test_writing_replaces_the_whole_table(store: Store) -> None:
    store.tables.write("t", FRAME)
    store.tables.write("t", pl.DataFrame({"other": [1]}))
    assert store.tables.scan("t").collect().to_dict(as_series=False) == {"other": [1]}


def test_a_scan_keeps_the_version_it_began_with(store: Store) -> None:
    store.tables.write("t", FRAME)
    scan = store.tables.scan("t")
    store.tables.write("t", pl.DataFrame({"other": [1]}))
    assert_frame_equal(scan.collect(), FRAME)


def test_a_table_may_be_written_from_its_own_scan(store: Store) -> None:
    store.tables.write("t", FRAME)
    assert store.tables.write("t", store.tables.scan("t").head(1)) == 1
    assert store.tables.scan("t").collect().height == 1


def test_keys_are_listed_below_a_folder_only(store: Store) -> None:
    for key in ("hub/repos/bert", "hub/repos/timm+vit", "hub/headers/bert", "hub2/x"):
        store.tables.write(key, pl.DataFrame({"a": [1]}))
    assert store.tables.keys("hub/repos") == ["hub/repos/bert", "hub/repos/timm+vit"]
    assert store.tables.keys("hub/") == ["hub/headers/bert", "hub/repos/bert", "hub/repos/timm+vit"]
    assert len(store.tables.keys("")) == 4
    assert store.tables.keys("nothing") == []


def test_a_missing_table_says_so(store: Store) -> None:
    assert not store.tables.exists("t")
    with pytest.raises(MissingInputError, match=r"There is no object at .*tables/t.parquet"):
        store.tables.scan("t")


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/..", "a b", ".a", "a" * 201, "a/b/"])
def test_an_unsafe_key_is_refused(store: Store, key: str) -> None:
    with pytest.raises(RefusedError, match="A store key must be segments"):
        store.tables.write(key, FRAME)


def test_a_write_that_fails_leaves_the_old_table(store: Store, tmp_path: Path) -> None:
    store.tables.write("t", FRAME)
    with pytest.raises(pl.exceptions.PolarsError):
        store.tables.write("t", FRAME.lazy().select(pl.col("absent")))
    assert_frame_equal(store.tables.scan("t").collect(), FRAME)
    assert not list((tmp_path / "store" / ".tmp").glob("*"))
