"""The part of the Kubernetes API that Dagster's launcher and executor ask, on loopback.

Jobs that are posted are kept as they came; one that holds a step is run as a process of this
machine, with the environment that its manifest states. No scheduler, no images, no volumes.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

JOBS = "/apis/batch/v1/namespaces/"


@dataclass(kw_only=True)
class KubernetesApi:
    """What was posted, and the processes of it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def post(self, job: dict[str, Any]) -> dict[str, Any]:
        """Take a job; run it if it is a step's."""
        name = job["metadata"]["name"]
        self.jobs[name] = job
        (container,) = job["spec"]["template"]["spec"]["containers"]
        if container["args"][-1] == "execute_step":
            stated = {v["name"]: v["value"] for v in container["env"] if "value" in v}
            stated.pop("DAGSTER_HOME", None)  # a folder of the image
            environment = {**os.environ, **stated, **self.environment}
            program = Path(sys.executable).with_name(container["args"][0])  # of this environment
            command = [str(program), *container["args"][1:]]
            self.processes[name] = subprocess.Popen(command, env=environment)
        return job

    def status(self, name: str) -> dict[str, Any] | None:
        """Say how a job is doing; None where there is no such job."""
        if name not in self.jobs:
            return None
        code = self.processes[name].poll() if name in self.processes else None
        counts = {None: {"active": 1}, 0: {"succeeded": 1}}
        return {**self.jobs[name], "status": counts.get(code, {"failed": 1})}


@contextmanager
def serve_kubernetes(folder: Path, api: KubernetesApi) -> Iterator[Path]:
    """Serve the API on loopback; the kubeconfig that names it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(201, api.post(body))

        def do_GET(self) -> None:
            found = api.status(self.path.split("/jobs/")[-1].split("/")[0])
            self._answer(404 if found is None else 200, found or {"message": "no such job"})

        def _answer(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    config = folder / "kubeconfig"
    config.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{server.server_port}")))
    try:
        yield config
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for process in api.processes.values():
            process.kill()
            process.wait()


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
        "current-context": "fake",
    }
