"""Which models a trained backbone has really never seen. Reads a run's job and its corpus snapshot.

The corpus moves on after a training: two lineages are joined by a new repo, a policy is changed. A
model that was trained on could then stand in the test split. Evaluations therefore hold out what
is held out now and was then, by whole lineages.
"""

from pathlib import Path

import polars as pl

from ws_pipeline.backbone.job import TrainJob
from ws_pipeline.defs.runs import find_model
from ws_pipeline.storage.store import Store


def read_training_corpus(home: Path, store: Store, recipe_name: str) -> pl.DataFrame:
    """The corpus rows that the recipe's current model was trained and validated on."""
    job = TrainJob.read(find_model(home, recipe_name).parent / "job.json")
    return store.snapshots.scan(job.snapshot).collect()


def hold_out_unseen(corpus: pl.DataFrame, trained_on: pl.DataFrame) -> pl.DataFrame:
    """The corpus with every lineage that the training saw moved into the train split.

    Args:
        corpus: Rows of `corpus/splits` as it is now.
        trained_on: Those of the snapshot that the model was trained on.
    """
    seen = trained_on.filter(pl.col("split") == "train")
    by_id = pl.col("hub_id").is_in(seen["hub_id"].to_list())
    by_shard = pl.col("shard_sha256").is_in(seen["shard_sha256"].to_list())
    is_seen = (by_id | by_shard).any().over("lineage_root")
    return corpus.with_columns(
        split=pl.when(is_seen).then(pl.lit("train")).otherwise(pl.col("split"))
    )


def read_held_out(home: Path, store: Store, recipe_name: str, corpus: pl.DataFrame) -> pl.DataFrame:
    """The corpus as a recipe's evaluations may use it."""
    return hold_out_unseen(corpus, read_training_corpus(home, store, recipe_name))
