import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ws_pipeline.errors import MissingInputError, RefusedError
from ws_pipeline.storage.snapshots import frame_digest
from ws_pipeline.storage.store import Store

FRAME = pl.DataFrame({"hub_id": ["a", "b", "c"], "manifest": ["x/1", "y/1", None]})


def test_a_snapshot_is_named_by_its_content(store: Store) -> None:
    digest = store.snapshots.create(FRAME)
    assert digest == frame_digest(FRAME)
    assert store.snapshots.create(FRAME.clone()) == digest
    assert store.snapshots.exists(digest)
    assert_frame_equal(store.snapshots.scan(digest).collect(), FRAME)
    assert store.snapshots.path(digest).endswith(f"snapshots/{digest}.parquet")


def test_chunks_do_not_change_the_digest() -> None:
    chunked = pl.concat([FRAME.head(1), FRAME.tail(2)], rechunk=False)
    assert frame_digest(chunked) == frame_digest(FRAME)


@pytest.mark.parametrize(
    "other",
    [
        FRAME.reverse(),
        FRAME.rename({"manifest": "m"}),
        FRAME.head(2),
        FRAME.with_columns(manifest=pl.lit("x/1")),
        FRAME.with_columns(pl.col("hub_id").cast(pl.Categorical)),
    ],
)
def test_any_difference_changes_the_digest(other: pl.DataFrame) -> None:
    assert frame_digest(other) != frame_digest(FRAME)


def test_the_digest_is_the_same_in_every_version() -> None:
    assert frame_digest(FRAME) == (
        "521ea0ba66444df94a0407227041ca92aece56da4300acc3d143c1d4d6d8971e"
    )


def test_binary_columns_have_no_digest() -> None:
    with pytest.raises(RefusedError, match="Column b of type Binary has no digest; leave it out"):
        frame_digest(pl.DataFrame({"b": [b"x"]}))


def test_a_missing_snapshot_says_so(store: Store) -> None:
    with pytest.raises(MissingInputError, match="There is no object at"):
        store.snapshots.scan("0" * 64)
    with pytest.raises(RefusedError, match="named by 64 hexadecimal digits"):
        store.snapshots.scan("../../etc/passwd")
