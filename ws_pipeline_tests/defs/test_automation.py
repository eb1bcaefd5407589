"""The conditions on a graph of the same shape as ours: what asks for a run, and what does not."""

from collections.abc import Iterator

import dagster as dg
import pytest

from ws_pipeline.defs.automation import CONDITIONS, WHEN_ANY_FAMILY_CHANGED, WHEN_INPUTS_CHANGED
from ws_pipeline.defs.build import build_defs

families = dg.DynamicPartitionsDefinition(name="family")
versions = {"bert": "1", "vit": "1"}


@dg.asset(partitions_def=families)
def repos(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion(versions[context.partition_key]))


@dg.asset(partitions_def=families, deps=[repos], automation_condition=WHEN_INPUTS_CHANGED)
def shards(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion(versions[context.partition_key]))


@dg.asset(
    deps=[dg.AssetDep(shards, partition_mapping=dg.AllPartitionMapping())],
    automation_condition=WHEN_ANY_FAMILY_CHANGED,
)
def splits() -> None: ...


DEFS = dg.Definitions([repos, shards, splits])


class Daemon:
    """Ticks the conditions and does what they ask for."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor: dg.AssetDaemonCursor | None = None

    def make(self, asset: dg.AssetsDefinition, partition: str | None = None) -> None:
        dg.materialize(
            [repos, shards, splits],
            selection=[asset],
            partition_key=partition,
            instance=self.instance,
        )

    def tick(self) -> set[tuple[str, str | None]]:
        """Evaluate once and run what was asked for."""
        result = dg.evaluate_automation_conditions(
            defs=DEFS, instance=self.instance, cursor=self.cursor
        )
        self.cursor = result.cursor
        asked = set()
        for asset in (shards, splits):
            for partition in result.get_requested_partitions(asset.key):
                asked.add((asset.key.to_user_string(), partition))
                self.make(asset, partition)
        return asked

    def settle(self) -> set[tuple[str, str | None]]:
        """Tick until nothing is asked for any more."""
        asked: set[tuple[str, str | None]] = set()
        for _ in range(6):
            now = self.tick()
            if not now:
                return asked
            asked |= now
        raise AssertionError(f"still asking after six ticks: {asked}")


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with dg.DagsterInstance.ephemeral() as instance:
        versions.update(bert="1", vit="1")
        instance.add_dynamic_partitions("family", ["bert", "vit"])
        for family in ("bert", "vit"):
            for asset in (repos, shards):
                Daemon(instance).make(asset, family)
        daemon = Daemon(instance)
        daemon.make(splits)
        daemon.settle()
        yield daemon


def test_a_crawl_that_found_the_same_asks_for_nothing(daemon: Daemon) -> None:
    daemon.make(repos, "bert")
    assert daemon.settle() == set()


def test_a_changed_family_runs_alone_and_then_the_corpus(daemon: Daemon) -> None:
    versions["bert"] = "2"
    daemon.make(repos, "bert")
    assert daemon.settle() == {("shards", "bert"), ("splits", None)}


def test_a_family_that_was_only_found_does_not_stop_the_corpus_of_the_others(
    daemon: Daemon,
) -> None:
    daemon.instance.add_dynamic_partitions("family", ["gpt2"])
    versions["vit"] = "2"
    daemon.make(repos, "vit")
    assert daemon.settle() == {("shards", "vit"), ("splits", None)}


def test_nothing_that_trains_or_crawls_runs_by_itself() -> None:
    conditions = {
        spec.key.to_user_string(): spec.automation_condition
        for spec in build_defs().resolve_all_asset_specs()
        if spec.automation_condition is not None
    }
    assert set(conditions) == {key.to_user_string() for key in CONDITIONS}
    assert not any(name.startswith(("backbone", "zoo", "evaluation")) for name in conditions)
    assert "hub/repos" not in conditions
