import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ws_pipeline_tests.defs.processes import (
    SLOW_TRAINER,
    fake_accelerate,
    is_gone,
    wait_for,
    write_script,
)

SUPERVISOR = [sys.executable, "-m", "ws_pipeline.defs.supervisor"]


def start(folder: Path, *options: str, grace: float = 10.0) -> "subprocess.Popen[bytes]":
    trainer = write_script(folder, "trainer.py", SLOW_TRAINER)
    command = [*fake_accelerate(folder), "launch", "-m", str(trainer), str(folder), *options]
    return subprocess.Popen(
        [*SUPERVISOR, "--grace", str(grace), "--", *command],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def trainer_pid(folder: Path) -> int:
    wait_for((folder / "pid").exists)
    return int((folder / "pid").read_text())


def finish(process: "subprocess.Popen[bytes]") -> int:
    code = process.wait(timeout=20)
    assert process.stdin is not None
    process.stdin.close()
    return code


@pytest.mark.parametrize("code", [0, 3])
def test_ends_with_the_code_of_its_command(tmp_path: Path, code: int) -> None:
    script = write_script(tmp_path, "exit.py", f"import sys; sys.exit({code})")
    process = subprocess.Popen(
        [*SUPERVISOR, "--grace", "1", "--", sys.executable, str(script)], stdin=subprocess.PIPE
    )
    assert finish(process) == code


def test_a_grandchild_saves_and_goes_when_the_supervisor_is_terminated(tmp_path: Path) -> None:
    process = start(tmp_path)
    pid = trainer_pid(tmp_path)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert (tmp_path / "saved").read_text() == "yes"
    assert is_gone(pid)


def test_a_grandchild_goes_when_the_other_end_of_the_pipe_closes(tmp_path: Path) -> None:
    process = start(tmp_path)
    pid = trainer_pid(tmp_path)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=20)
    assert (tmp_path / "saved").exists()
    assert is_gone(pid)


def test_a_grandchild_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    process = start(tmp_path, "--deaf", grace=0.5)
    pid = trainer_pid(tmp_path)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert not (tmp_path / "saved").exists()
    assert is_gone(pid)


def test_a_command_that_leaves_a_process_behind_does_not_get_away_with_it(tmp_path: Path) -> None:
    trainer = write_script(tmp_path, "trainer.py", SLOW_TRAINER)
    leaver = write_script(
        tmp_path,
        "leaver.py",
        f"""
        import pathlib, subprocess, sys, time
        subprocess.Popen(
            [sys.executable, {str(trainer)!r}, {str(tmp_path)!r}], start_new_session=True
        )
        while not pathlib.Path({str(tmp_path / "pid")!r}).exists():
            time.sleep(0.05)
        """,
    )
    process = subprocess.Popen(
        [*SUPERVISOR, "--grace", "5", "--", sys.executable, str(leaver)], stdin=subprocess.PIPE
    )
    assert finish(process) == 0
    assert is_gone(trainer_pid(tmp_path))
