"""The same three steps in one process and in several; what every executor needs to load."""

import os
import shutil
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from ws_pipeline.defs.assets.hub import FILES, HEADERS, REPOS, SELECTION
from ws_pipeline.defs.assets.tokens import SHARDS
from ws_pipeline.defs.assets.weights import LAYERS
from ws_pipeline.defs.build import build_defs, default_resources
from ws_pipeline.defs.executors import EXECUTORS, find_executor
from ws_pipeline.defs.instance import execute, open_instance, prepare_instance
from ws_pipeline.defs.partitions import families
from ws_pipeline.errors import ConfigError
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.defs.small_hub import write_hub

STEPS = [FILES, LAYERS, SHARDS]
TREE = str(Path(__file__).parents[2])


def test_a_name_that_is_none_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="in_process, multiprocess, ray, kubernetes; got 'dask'"):
        find_executor("dask")


@pytest.mark.parametrize("name", sorted(EXECUTORS))
def test_every_executor_makes_a_code_location(name: str) -> None:
    if name in {"ray", "kubernetes"}:
        pytest.importorskip({"ray": "dagster_ray", "kubernetes": "dagster_k8s"}[name])
    definitions = build_defs(executor=name)
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("refresh_family").executor_def == find_executor(name)


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose one family is crawled and selected, and nothing more."""
    home = tmp_path_factory.mktemp("selected") / "home"
    write_hub(home / "hub", families=("mlp",), num_repos=6)
    with open_instance(home) as instance:
        instance.add_dynamic_partitions(str(families.name), ["mlp"])
        definitions = build_defs(default_resources(home=str(home)))
        execute(definitions, instance, "crawl_family", [REPOS], partition="mlp")
        (*_, last) = execute(
            definitions, instance, "refresh_family", [HEADERS, SELECTION], partition="mlp"
        )
    assert last.made
    return home


@pytest.fixture(scope="module")
def expected(selected: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes."""
    home = shutil.copytree(selected, tmp_path_factory.mktemp("in-process") / "home")
    with open_instance(home) as instance:
        runs = execute(
            build_defs(default_resources(home=str(home))),
            instance,
            "refresh_family",
            STEPS,
            partition="mlp",
        )
    assert all(run.made for run in runs)
    return stored(home)


def stored(home: Path) -> dict[str, bytes]:
    """Every manifest and the name of every blob."""
    store = Store.open(home / "store")
    folder = store.manifests.folder
    found = {key: folder.read(key) for key in folder.keys("manifests")}
    return found | dict.fromkeys(folder.keys("blobs"), b"")


def run_steps(home: Path) -> dg.JobExecutionResult:
    """Run the three steps by the executor that WS_EXECUTOR names."""
    location = ReconstructableRepository.for_module("ws_pipeline.definitions", "defs", TREE)
    os.environ["DAGSTER_HOME"] = str(prepare_instance(home))
    # Without the checks: each is one more step, and a process or a job of its own here.
    steps = location.get_reconstructable_job("refresh_family").get_subset(
        asset_selection=frozenset(STEPS), asset_check_selection=frozenset()
    )
    with dg.DagsterInstance.get() as instance:
        return dg.execute_job(
            steps,
            instance=instance,
            tags={"dagster/partition": "mlp"},
            raise_on_error=False,
        )


@pytest.fixture
def home(selected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(selected, tmp_path / "home"))
    monkeypatch.setenv("WS_HOME", str(folder))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("PYTHONPATH", TREE)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return folder


@pytest.mark.slow
def test_processes_make_the_same_bytes(
    home: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WS_EXECUTOR", "multiprocess")
    assert run_steps(home).success
    assert len(expected) >= 6 * len(STEPS)
    assert stored(home) == expected
