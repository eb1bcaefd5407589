"""A worker ends with its code server, however that one ends; other processes are left alone."""

import subprocess
import sys
from pathlib import Path

import psutil

from ws_pipeline.defs.worker import EXIT_CODE, end_with_code_server
from ws_pipeline_tests.defs.processes import is_gone, wait_for

# Named as Dagster's own: `... code-server` starts a worker by spawn, which watches.
CODE_SERVER = """
import multiprocessing, time
from ws_pipeline.defs.worker import end_with_code_server

def work():
    print(end_with_code_server(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    print(worker.pid, flush=True)
    worker.join()
"""


def test_a_worker_ends_when_its_code_server_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(CODE_SERVER)
    command = [sys.executable, str(script), "code-server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        assert server.stdout.readline().strip() == "True"
        assert psutil.pid_exists(worker)
        server.kill()
        wait_for(lambda: is_gone(worker), seconds=15)


def test_a_process_that_no_code_server_started_does_not_watch() -> None:
    assert not end_with_code_server()
    assert EXIT_CODE == 143
