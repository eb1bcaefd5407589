import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ws_pipeline.defs.launcher import LauncherResource, launch_environment
from ws_pipeline_tests.defs.processes import (
    REPORTING_TRAINER,
    SLOW_TRAINER,
    fake_accelerate,
    is_gone,
    wait_for,
    write_script,
)


def materialize(folder: Path, *options: str) -> dg.ExecuteInProcessResult:
    trainer = write_script(folder, "trainer.py", REPORTING_TRAINER)

    @dg.asset
    def trained(
        context: dg.AssetExecutionContext, launcher: LauncherResource
    ) -> dg.MaterializeResult[Any]:
        invocation = launcher.run(context=context, module=str(trainer), arguments=list(options))
        return invocation.get_materialize_result()

    launcher = LauncherResource(accelerate=fake_accelerate(folder))
    return dg.materialize([trained], resources={"launcher": launcher}, raise_on_error=False)


def test_what_the_trainer_reports_is_in_the_materialisation(tmp_path: Path) -> None:
    result = materialize(tmp_path)
    (made,) = result.asset_materializations_for_node("trained")
    assert made.metadata["loss"].value == 0.5
    assert made.tags is not None
    assert made.tags["dagster/data_version"] == "v1"


def test_a_failure_carries_the_trainers_own_reason(tmp_path: Path) -> None:
    result = materialize(tmp_path, "--fail")
    failure = result.failure_data_for_node("trained")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "the disk is full" in str(failure.user_failure_data.description)
    assert failure.user_failure_data.metadata["reason"].value == "no_space"


def test_one_process_needs_no_flag_and_several_run_as_ranks_without_a_gpu() -> None:
    launcher = LauncherResource()
    one = launcher.command("some.module", ["--job", "x"], 1)
    two = launcher.command("some.module", ["--job", "x"], 2)
    assert "--multi_gpu" not in one
    assert "--multi_gpu" in two
    assert two[two.index("--num_processes") + 1] == "2"
    assert one[-4:] == ["-m", "some.module", "--job", "x"]
    assert "ACCELERATE_USE_CPU" not in launch_environment(1)


# A run worker as Dagster starts one, cut down: an asset that launches the slow trainer.
WORKER = """
import sys
import dagster as dg
from ws_pipeline.defs.launcher import LauncherResource

@dg.asset
def trained(context: dg.AssetExecutionContext, launcher: LauncherResource) -> None:
    launcher.run(context=context, module=sys.argv[1], arguments=[sys.argv[2]])

if __name__ == "__main__":
    resource = LauncherResource(accelerate=[sys.executable, sys.argv[3]], grace_seconds=10)
    dg.materialize([trained], resources={"launcher": resource}, raise_on_error=False)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_trainer_survives_its_run_worker(tmp_path: Path, number: signal.Signals) -> None:
    trainer = write_script(tmp_path, "trainer.py", SLOW_TRAINER)
    worker = write_script(tmp_path, "worker.py", WORKER)
    accelerate = fake_accelerate(tmp_path)[-1]
    process = subprocess.Popen(
        [sys.executable, str(worker), str(trainer), str(tmp_path), accelerate],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DAGSTER_HOME": ""},
    )
    wait_for((tmp_path / "pid").exists, seconds=40)
    pid = int((tmp_path / "pid").read_text())
    process.send_signal(number)
    process.wait(timeout=30)
    wait_for(lambda: is_gone(pid), seconds=20)
    assert (tmp_path / "saved").exists()
