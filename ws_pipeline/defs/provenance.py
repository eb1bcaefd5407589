"""What an asset partition was made from, and whether that is still what is there.

Belongs here: input versions and their digest. Does not: deciding what to run
(:mod:`ws_pipeline.defs.staleness`). Dagster's own input tags fold all partitions of a dependency
into one hash, and from 100 partitions on only note the last one
(`SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD` in dagster/_core/definitions/data_version.py,
1.13.27); a corpus over a few hundred families needs to know exactly. So every materialisation also
carries one digest over the data version of each partition that it was made from. Reads the event
log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from ws_pipeline.defs.partitions import dimension, partition_keys

DATA_VERSION_TAG = "dagster/data_version"
CODE_VERSION_TAG = "dagster/code_version"
INPUTS_TAG = "ws/input_digest"
CONFIG_TAG = "ws/config_digest"
RETRY_TAG = "ws/num_retryable"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedStep:
    """The latest materialisation of one asset partition, as its tags tell it."""

    data_version: str
    code_version: str
    input_digest: str
    config_digest: str
    num_retryable: int


@dataclass(kw_only=True, slots=True)
class VersionReader:
    """Data versions of an instance's assets, one query an asset; remembers what it read."""

    instance: dg.DagsterInstance
    _versions: dict[dg.AssetKey, Mapping[str, str]] = field(default_factory=dict)

    def forget(self, asset_keys: Iterable[dg.AssetKey]) -> None:
        """Read these assets' versions again next time: they were just materialised."""
        for asset_key in asset_keys:
            self._versions.pop(asset_key, None)

    def versions(self, asset_key: dg.AssetKey) -> Mapping[str, str]:
        """Data version by partition ("" for an asset without); what was never made is absent."""
        if asset_key not in self._versions:
            self._versions[asset_key] = self._read(asset_key)
        return self._versions[asset_key]

    def _read(self, asset_key: dg.AssetKey) -> Mapping[str, str]:
        if not dimension(asset_key):
            event = self.instance.get_latest_materialization_event(asset_key)
            made = event.asset_materialization if event else None
            return {"": (made.tags or {}).get(DATA_VERSION_TAG, "")} if made else {}
        tags = self.instance.event_log_storage.get_latest_tags_by_partition(
            asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
        )
        existing = set(partition_keys(self.instance, asset_key))
        return {key: row[DATA_VERSION_TAG] for key, row in tags.items() if key in existing}

    def input_versions(
        self, asset_key: dg.AssetKey, partition: str | None, inputs: Iterable[dg.AssetKey]
    ) -> dict[str, str]:
        """The data version of every asset partition that one is made from, by `key/partition`.

        Same dimension: the same partition; no dimension: the asset; otherwise all partitions.
        """
        found: dict[str, str] = {}
        for key in inputs:
            versions = self.versions(key)
            if dimension(key) and dimension(key) == dimension(asset_key):
                versions = {p: v for p, v in versions.items() if p == partition}
            found |= {f"{key.to_user_string()}/{p}": v for p, v in versions.items()}
        return found

    def recorded(self, asset_key: dg.AssetKey, partition: str | None) -> RecordedStep | None:
        """What the latest materialisation says of itself; None if there is none."""
        made = self._latest(asset_key, partition)
        if made is None:
            return None
        tags = made.tags or {}
        return RecordedStep(
            data_version=tags.get(DATA_VERSION_TAG, ""),
            code_version=tags.get(CODE_VERSION_TAG, ""),
            input_digest=tags.get(INPUTS_TAG, ""),
            config_digest=tags.get(CONFIG_TAG, ""),
            num_retryable=int(tags.get(RETRY_TAG, "0")),
        )

    def metadata(self, asset_key: dg.AssetKey, partition: str | None) -> dict[str, Any]:
        """The latest materialisation's metadata as plain values; empty if there is none."""
        made = self._latest(asset_key, partition)
        return {} if made is None else {name: v.value for name, v in made.metadata.items()}

    def _latest(
        self, asset_key: dg.AssetKey, partition: str | None
    ) -> dg.AssetMaterialization | None:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=asset_key, asset_partitions=[partition] if partition else None
            ),
            limit=1,
        ).records
        return records[0].asset_materialization if records else None
