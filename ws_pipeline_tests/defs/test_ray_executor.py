"""Steps on a real Ray cluster of three nodes, two of which die, one by one, with the work they had.

The tests share a cluster and a home and go on from each other. What is stored at the end of a run
is compared with what one undisturbed process makes of the same hub.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEventType
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import serialize_value

from ws_pipeline.defs.assets.hub import FILES
from ws_pipeline.defs.instance import prepare_instance
from ws_pipeline.defs.ray_executor import run_step
from ws_pipeline_tests.defs.processes import is_gone, wait_for
from ws_pipeline_tests.defs.ray_cluster import RayCluster, running_cluster
from ws_pipeline_tests.defs.steps import STEPS, TREE, make_in_process, select_families, stored

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FAMILIES = ("mlp", "cnn", "rnn")
NUM_REPOS = 25
FILES_STEP = FILES.to_python_identifier()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "home"
    select_families(folder, FAMILIES, num_repos=NUM_REPOS)
    return folder


@pytest.fixture(scope="module")
def expected(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """What one process makes of all families."""
    copy = Path(shutil.copytree(home, tmp_path_factory.mktemp("in-process") / "home"))
    return make_in_process(copy, FAMILIES)


@pytest.fixture(scope="module")
def cluster(home: Path, expected: Mapping[str, bytes]) -> Iterator[RayCluster]:
    environment = {
        "WS_HOME": str(home),
        "DAGSTER_HOME": str(prepare_instance(home)),
        "PYTHONPATH": TREE,
        "OMP_NUM_THREADS": "1",
    }
    with running_cluster(environment, num_nodes=2) as running:
        yield running


def launch(cluster: RayCluster, home: Path, family: str) -> "subprocess.Popen[bytes]":
    """Start a run as a process of its own."""
    command = [sys.executable, "-m", "ws_pipeline_tests.defs.steps", str(home), family]
    address = {"WS_EXECUTOR": "ray", "RAY_ADDRESS": cluster.address}
    return subprocess.Popen(command, env={**cluster.environment, **address}, cwd=TREE)


def events(home: Path, family: str) -> list[dg.DagsterEvent]:
    """What the family's last run has said so far."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        found = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": family}), limit=1)
        entries = [entry for run in found for entry in instance.all_logs(run.run_id)]
    return [entry.dagster_event for entry in entries if entry.dagster_event is not None]


def workers(home: Path, family: str, step: str) -> list[int]:
    """Processes that took up a step."""
    return [
        int(str(event.event_specific_data.metadata["pid"].value))  # type: ignore[union-attr]
        for event in events(home, family)
        if event.event_type == DagsterEventType.STEP_WORKER_STARTED and event.step_key == step
    ]


def count(home: Path, family: str, kind: DagsterEventType, step: str) -> int:
    found: list[Any] = [e for e in events(home, family) if e.event_type == kind]
    return sum(event.step_key == step for event in found)


def num_files(home: Path, expected: Mapping[str, bytes]) -> int:
    """Manifests of the stage `files` so far."""
    return sum((home / "store" / key).exists() for key in expected if "/files/" in key)


def test_a_cluster_makes_the_same_bytes_as_one_process(
    cluster: RayCluster, home: Path, expected: Mapping[str, bytes]
) -> None:
    assert launch(cluster, home, "mlp").wait(timeout=600) == 0
    found = stored(home)
    assert len(found) >= NUM_REPOS * len(STEPS)
    assert {key: expected[key] for key in found} == found
    pids = [pid for step in STEPS for pid in workers(home, "mlp", step.to_python_identifier())]
    assert len(set(pids)) == len(STEPS)
    wait_for(lambda: all(is_gone(pid) for pid in pids), seconds=60)


def test_a_task_that_is_run_again_after_its_step_had_finished_does_nothing(
    cluster: RayCluster, home: Path
) -> None:
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "mlp"}), limit=1)
        assert run.job_code_origin is not None
        arguments = ExecuteStepArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            step_keys_to_execute=[FILES_STEP],
            instance_ref=instance.get_ref(),
        )
    before = workers(home, "mlp", FILES_STEP)
    run_step(serialize_value(arguments))
    assert workers(home, "mlp", FILES_STEP) == before


def test_no_step_outlives_the_worker_of_its_run(cluster: RayCluster, home: Path) -> None:
    run = launch(cluster, home, "rnn")
    wait_for(lambda: bool(workers(home, "rnn", FILES_STEP)), seconds=300)
    (pid,) = workers(home, "rnn", FILES_STEP)
    run.kill()
    run.wait()
    wait_for(lambda: is_gone(pid), seconds=60)
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        (lost,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "rnn"}), limit=1)
        # As the daemon does it: without one, the lost run would keep its place in the pool.
        instance.report_run_failed(lost, "its worker was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(lost.run_id)


def test_a_step_that_loses_its_node_goes_on_at_another_and_nothing_is_lost(
    cluster: RayCluster, home: Path, expected: Mapping[str, bytes]
) -> None:
    before = num_files(home, expected)
    run = launch(cluster, home, "cnn")
    deadline = time.monotonic() + 300
    while num_files(home, expected) == before and time.monotonic() < deadline:
        time.sleep(0.002)
    (pid,) = workers(home, "cnn", FILES_STEP)
    cluster.lose_node_of(pid)
    assert before < num_files(home, expected) < before + NUM_REPOS  # in the middle of it
    assert run.wait(timeout=600) == 0
    assert count(home, "cnn", DagsterEventType.STEP_START, FILES_STEP) == 2
    assert count(home, "cnn", DagsterEventType.STEP_SUCCESS, FILES_STEP) == 1
    assert launch(cluster, home, "rnn").wait(timeout=600) == 0  # on the node that is left
    assert stored(home) == expected
    assert [p for p in cluster.living() if "run_step" in " ".join(p.cmdline())] == []
