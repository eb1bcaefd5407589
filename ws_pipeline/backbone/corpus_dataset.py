"""The splits of a corpus snapshot as data sets of MLflow, so that a run names what it was fed.

A data set per split, named and with a digest as the run's page and the Dataset column show them:
the snapshot's own, families and counts in schema and profile. Nothing of the weights is read; the
source leads back to the store. Imports mlflow, so it is imported when a run is opened. No I/O.
"""

import json
from typing import Any

import polars as pl
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.entities import DatasetInput, InputTag
from mlflow.types import ColSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from ws_pipeline.storage.store import Store

DIGEST_LENGTH = 12
"""Characters of the snapshot's sha256; MLflow takes up to 36 and shows them all."""

CONTEXTS = {"train": "training", "val": "validation", "test": "test"}
"""What MLflow calls our splits."""

COLUMNS = {
    "family": "string",
    "repo_id": "string",
    "revision": "string",
    "licence": "string",
    "num_params": "long",
}
"""Of a corpus row; what a person would filter by."""


class SnapshotSource(DatasetSource):
    """A split of a snapshot in a store.

    Args:
        store: Its root.
        snapshot: Its digest.
        split: `train`, `val` or `test`.
    """

    def __init__(self, store: str, snapshot: str, split: str) -> None:
        self.store = store
        self.snapshot = snapshot
        self.split = split

    @staticmethod
    def _get_source_type() -> str:
        return "ws_pipeline_snapshot"

    def load(self) -> pl.DataFrame:
        """Return the corpus rows of the split; reads the store."""
        rows = Store.open(self.store).snapshots.scan(self.snapshot)
        return rows.filter(pl.col("split") == self.split).collect()

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        del raw_source  # nothing but its own JSON leads here
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> "SnapshotSource":
        raise NotImplementedError(f"a snapshot is not found from {type(raw_source).__name__}")

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes."""
        return {"store": self.store, "snapshot": self.snapshot, "split": self.split}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> "SnapshotSource":
        """Return the source of what :meth:`to_dict` gave."""
        return cls(**source_dict)


class CorpusDataset(Dataset):
    """One split of a snapshot.

    Args:
        source: Where it is.
        rows: Its corpus rows.
    """

    def __init__(self, source: SnapshotSource, rows: pl.DataFrame) -> None:
        self._rows = rows
        super().__init__(source=source, name=f"corpus-{source.split}")

    def _compute_digest(self) -> str:
        source = self.source
        assert isinstance(source, SnapshotSource)  # noqa: S101 - of __init__
        return source.snapshot[:DIGEST_LENGTH]

    @property
    def schema(self) -> Schema:
        """Columns of the corpus that describe a model."""
        kept = [(name, kind) for name, kind in COLUMNS.items() if name in self._rows.columns]
        return Schema([ColSpec(kind, name) for name, kind in kept])

    @property
    def profile(self) -> dict[str, Any]:
        """Counts of models and weights, and the models of each family, as MLflow's page has room.

        The page cuts a value after 100 characters, so that the largest families come first.
        """
        families = (
            self._rows.group_by("family").len().sort("len", "family", descending=[True, False])
        )
        return {
            "num_rows": self._rows.height,
            "num_params": int(self._rows["num_params"].sum()),
            "num_families": families.height,
            "families": ", ".join(f"{family} {count}" for family, count in families.rows()),
        }

    def to_dict(self) -> dict[str, str]:
        """Return the fields of MLflow's entity."""
        return super().to_dict() | {
            "schema": json.dumps({"mlflow_colspec": self.schema.to_dict()}),
            "profile": json.dumps(self.profile),
        }


def list_inputs(store: str, snapshot: str, corpus: pl.DataFrame) -> list[DatasetInput]:
    """Return the splits that a training looks at as inputs of its run.

    Args:
        store: Root of the store.
        snapshot: Digest of the corpus snapshot.
        corpus: Its rows.
    """
    inputs = []
    for split in ("train", "val"):
        rows = corpus.filter(pl.col("split") == split)
        if rows.height:
            dataset = CorpusDataset(SnapshotSource(store, snapshot, split), rows)
            tags = [InputTag(MLFLOW_DATASET_CONTEXT, CONTEXTS[split])]
            inputs.append(DatasetInput(dataset._to_mlflow_entity(), tags))
    return inputs
