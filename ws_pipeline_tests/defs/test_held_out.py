import polars as pl

from ws_pipeline.defs.held_out import hold_out_unseen


def corpus(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Rows of (hub id, lineage, split); each model has weights of its own."""
    return pl.DataFrame(
        [
            {"hub_id": i, "lineage_root": root, "split": split, "shard_sha256": f"sha-{i}"}
            for i, root, split in rows
        ]
    )


THEN = corpus(("a", "a", "train"), ("b", "b", "val"), ("c", "c", "test"))


def splits(now: pl.DataFrame, then: pl.DataFrame = THEN) -> dict[str, str]:
    return dict(hold_out_unseen(now, then).select("hub_id", "split").rows())


def test_nothing_moves_while_the_splits_stand() -> None:
    assert splits(THEN) == {"a": "train", "b": "val", "c": "test"}


def test_a_new_model_of_a_new_lineage_is_held_out_as_the_corpus_says() -> None:
    now = pl.concat([THEN, corpus(("d", "d", "test"))])
    assert splits(now)["d"] == "test"


def test_a_model_that_was_trained_on_is_never_tested_on_whatever_the_splits_say_now() -> None:
    assert splits(corpus(("a", "a", "test"), ("c", "c", "test"))) == {"a": "train", "c": "test"}


def test_a_joined_lineage_is_seen_as_a_whole() -> None:
    now = corpus(("a", "x", "test"), ("c", "x", "test"), ("e", "x", "test"))
    assert set(splits(now).values()) == {"train"}


def test_a_renamed_copy_of_trained_weights_is_seen() -> None:
    copy = corpus(("f", "f", "test")).with_columns(shard_sha256=pl.lit("sha-a"))
    assert splits(copy) == {"f": "train"}
