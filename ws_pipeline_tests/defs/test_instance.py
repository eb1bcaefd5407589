import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import yaml

from ws_pipeline.defs import operations
from ws_pipeline.defs.abandoned import DRIVER_TAG
from ws_pipeline.defs.instance import open_instance, prepare_instance
from ws_pipeline_tests.defs.processes import wait_for, write_script

DRIVER = """
import pathlib, sys, time
import ws_pipeline.defs.assets.weights as weights
from ws_pipeline.defs import operations

home = pathlib.Path(sys.argv[1])

def hang(*_):
    (home / "hanging").touch()
    time.sleep(60)

weights.plan_family = hang
operations.refresh(home, families=["mlp"])
"""


def start_and_hang(home: Path) -> "subprocess.Popen[bytes]":
    """A refresh that stops in the middle of a run."""
    script = write_script(home, "driver.py", DRIVER)
    process = subprocess.Popen([sys.executable, str(script), str(home)])
    wait_for((home / "hanging").exists, seconds=60)
    return process


def test_a_killed_refresh_is_taken_up_where_it_stopped_and_leaves_no_running_run(
    home: Path,
) -> None:
    process = start_and_hang(home)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    result = operations.refresh(home, families=["mlp"])
    assert not result.failed
    outcomes = {o.asset: o for o in result.outcomes}
    assert outcomes["hub/files"].state == "unchanged"
    assert outcomes["weights/layers"].num_processed == 3
    with open_instance(home) as instance:
        statuses = [run.status for run in instance.get_runs()]
    assert statuses.count(dg.DagsterRunStatus.FAILURE) == 1
    assert dg.DagsterRunStatus.STARTED not in statuses


def test_ctrl_c_ends_the_whole_command(home: Path) -> None:
    process = start_and_hang(home)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) != 0
    with open_instance(home) as instance:
        assert dg.DagsterRunStatus.STARTED not in [run.status for run in instance.get_runs()]


def test_runs_of_a_living_driver_or_of_another_host_are_left_alone(tmp_path: Path) -> None:
    with open_instance(tmp_path) as instance:
        for driver in (f"elsewhere_{os.getpid()}_1", "", "not a driver"):
            dg.DagsterInstance.create_run_for_job(
                instance, dg.GraphDefinition(name="empty").to_job(), tags={DRIVER_TAG: driver}
            )
    with open_instance(tmp_path) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.NOT_STARTED}


def test_dagster_yaml_is_written_once_and_then_the_users(tmp_path: Path) -> None:
    config = prepare_instance(tmp_path) / "dagster.yaml"
    values = yaml.safe_load(config.read_text())
    assert values["telemetry"]["enabled"] is False
    assert values["nux"]["enabled"] is False
    config.write_text("telemetry: {enabled: false}\n")
    prepare_instance(tmp_path)
    assert config.read_text() == "telemetry: {enabled: false}\n"
