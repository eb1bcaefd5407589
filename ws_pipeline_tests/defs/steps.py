"""Three steps of a family, by whichever executor WS_EXECUTOR names, and what one process makes.

`python -m ws_pipeline_tests.defs.steps HOME FAMILY` runs them in a process that can be killed.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository

from ws_pipeline.defs.assets.hub import FILES, HEADERS, REPOS, SELECTION
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.build import build_defs, default_resources
from ws_pipeline.defs.instance import execute, open_instance, prepare_instance
from ws_pipeline.defs.partitions import families
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.defs.small_hub import write_hub

STEPS = [FILES, LAYERS, SHARDS]
TREE = str(Path(__file__).parents[2])


def select_families(home: Path, names: Sequence[str], *, num_repos: int) -> None:
    """Make a home whose families are crawled and selected, and nothing more."""
    write_hub(home / "hub", families=tuple(names), num_repos=num_repos)
    definitions = build_defs(default_resources(home=str(home)))
    with open_instance(home) as instance:
        instance.add_dynamic_partitions(str(families.name), list(names))
        for name in names:
            execute(definitions, instance, "crawl_family", [REPOS], partition=name)
            keys = [HEADERS, SELECTION]
            (*_, last) = execute(definitions, instance, "refresh_family", keys, partition=name)
            assert last.made


def make_in_process(home: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Run the steps in this process; what is stored then."""
    definitions = build_defs(default_resources(home=str(home)))
    with open_instance(home) as instance:
        for name in names:
            runs = execute(definitions, instance, "refresh_family", STEPS, partition=name)
            assert all(run.made for run in runs)
    return stored(home)


def stored(home: Path) -> dict[str, bytes]:
    """Every manifest and the name of every blob."""
    store = Store.open(home / "store")
    folder = store.manifests.folder
    found = {key: folder.read(key) for key in folder.keys("manifests")}
    return found | dict.fromkeys(folder.keys("blobs"), b"")


def run_steps(home: Path, family: str) -> dg.JobExecutionResult:
    """Run the three steps by the executor that WS_EXECUTOR names."""
    location = ReconstructableRepository.for_module("ws_pipeline.definitions", "defs", TREE)
    os.environ["DAGSTER_HOME"] = str(prepare_instance(home))
    # Without the checks: each is one more step, and a process or a task of its own here.
    steps = location.get_reconstructable_job("refresh_family").get_subset(
        asset_selection=frozenset(STEPS), asset_check_selection=frozenset()
    )
    with dg.DagsterInstance.get() as instance:
        return dg.execute_job(
            steps,
            instance=instance,
            tags={"dagster/partition": family},
            raise_on_error=False,
        )


if __name__ == "__main__":
    sys.exit(not run_steps(Path(sys.argv[1]), sys.argv[2]).success)
