"""A Ray cluster on this machine: a head without CPUs for the runs, nodes of one CPU for steps."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from ws_pipeline_tests.defs.processes import is_gone, wait_for
from ws_pipeline_tests.storage.s3_server import free_ports

HOST = "127.0.0.2"
"""Loopback, which Ray would replace by the machine's own address if it were 127.0.0.1."""

MARK = "WS_RAY"
"""In the environment of every process of a cluster, so that what is left of it can be found."""

PATIENCE = {
    # A loaded machine of two cores takes minutes for what these give seconds to.
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
}


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A running cluster."""

    folder: Path
    address: str
    environment: Mapping[str, str]

    def add_node(self, *options: str) -> None:
        """Start a node, the first as head; returns once it has joined."""
        command = [str(Path(sys.executable).parent / "ray"), "start", *options]
        command += [f"--node-ip-address={HOST}", "--object-store-memory=80000000"]
        done = subprocess.run(
            [*command, "--disable-usage-stats"],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    def lose_node_of(self, worker: int) -> None:
        """Lose the node of a step's process, all of it at once, as a host that goes down."""
        raylet = psutil.Process(worker).parent()
        assert raylet is not None
        assert raylet.name() == "raylet"
        node = [raylet, *raylet.children(recursive=True)]
        for process in node:
            process.send_signal(signal.SIGSTOP)
        for process in node:
            process.kill()
        for process in node:
            wait_for(lambda pid=process.pid: is_gone(pid), seconds=30)  # type: ignore[misc]

    def living(self) -> list[psutil.Process]:
        """Every process of this cluster, wherever it hangs in the tree."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return [process for process in found if not is_gone(process.pid)]


@contextlib.contextmanager
def running_cluster(environment: Mapping[str, str], *, num_nodes: int) -> Iterator[RayCluster]:
    """Start a head and some nodes; nothing of them is left afterwards."""
    # Short: the names of Ray's sockets below it have room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="ws-ray-", dir="/tmp"))
    (port, client_port) = free_ports(2)
    cluster = RayCluster(
        folder=folder,
        address=f"{HOST}:{port}",
        environment={**os.environ, **environment, **PATIENCE, MARK: str(folder)},
    )
    try:
        head = ("--head", f"--port={port}", f"--ray-client-server-port={client_port}")
        cluster.add_node(*head, "--num-cpus=0", f"--temp-dir={folder}", "--include-dashboard=false")
        for _ in range(num_nodes):
            cluster.add_node(f"--address={cluster.address}", "--num-cpus=1")
        yield cluster
    finally:
        for process in cluster.living():
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
