"""Which asset partitions are out of date. Reads the event log; runs nothing.

An asset partition is stale when it was never made, when its code version or its config digest is
another one, when an input has another data version than the one it was made from, when a blocking
check on it did not pass, or when rows of it failed for a reason that another attempt may cure. Same
input versions mean that nothing has to run, however often the inputs were materialised in between.
"""

from dataclasses import dataclass
from typing import Literal

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from ws_pipeline.defs.config_digests import config_digest
from ws_pipeline.defs.digests import digest
from ws_pipeline.defs.provenance import RecordedStep, VersionReader

Cause = Literal["", "missing", "code", "config", "data", "check", "retry"]


@dataclass(kw_only=True, slots=True)
class StalenessReader:
    """Compares what materialisations say of themselves with what is there now.

    Args:
        definitions: The code location: its graph and code versions.
        versions: Reader of the instance's event log.
        policy: Name of the recipe whose policies the corpus follows.
    """

    definitions: dg.Definitions
    versions: VersionReader
    policy: str

    def cause(self, asset_key: dg.AssetKey, partition: str = "") -> Cause:
        """Why an asset partition is stale; "" if it is not."""
        recorded = self.versions.recorded(asset_key, partition or None)
        if recorded is None:
            return "missing"
        node = self.definitions.resolve_asset_graph().get(asset_key)
        if recorded.code_version != node.code_version:
            return "code"
        if recorded.config_digest != config_digest(asset_key, partition, policy=self.policy):
            return "config"
        if recorded.input_digest != self._input_digest(asset_key, partition):
            return "data"
        if not self.is_checked(asset_key, partition):
            return "check"
        return "retry" if recorded.num_retryable else ""

    def is_checked(self, asset_key: dg.AssetKey, partition: str = "") -> bool:
        """Whether the latest run of every blocking check on it passed."""
        graph = self.definitions.resolve_asset_graph()
        keys = [key for key in graph.get(asset_key).check_keys if graph.get(key).blocking]
        latest = self.versions.instance.event_log_storage.get_latest_asset_check_execution_by_key(
            keys, partition_filter=PartitionKeyFilter(key=partition or None)
        )
        passed = AssetCheckExecutionRecordStatus.SUCCEEDED
        return all(key in latest and latest[key].status == passed for key in keys)

    def _input_digest(self, asset_key: dg.AssetKey, partition: str) -> str:
        inputs = self.definitions.resolve_asset_graph().get(asset_key).parent_keys
        return digest(self.versions.input_versions(asset_key, partition or None, inputs))

    def recorded(self, asset_key: dg.AssetKey, partition: str = "") -> RecordedStep | None:
        """The latest materialisation; None if there is none."""
        return self.versions.recorded(asset_key, partition or None)
