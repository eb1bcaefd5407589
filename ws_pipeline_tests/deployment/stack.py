"""The services of docker/compose.yaml as processes: start, kill as an engine would, start again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ws_pipeline_tests.deployment import postgres_server
from ws_pipeline_tests.deployment.compose import DOCKER, Translation, read_compose
from ws_pipeline_tests.deployment.graphql import Webserver
from ws_pipeline_tests.storage.s3_server import free_ports

SECRETS = {
    "POSTGRES_PASSWORD": "pg-canary-81c5",
    "S3_KEY": "s3-key-canary",
    "S3_SECRET": "s3-secret-canary",
    "HF_TOKEN": "hf_canaryOfTheStack",
}
START_SECONDS = 240.0
MARK = "WS_STACK"
"""In the environment of every process of a stack, so that what is left of it can be found."""

ORDER = ("postgres", "s3", "migrate", "bucket", "mlflow", "code", "webserver", "daemon")
ONCE = ("migrate", "bucket")


@dataclass(kw_only=True)
class Stack:
    """A running deployment."""

    folder: Path
    services: Mapping[str, Any]
    translation: Translation
    postgres: Path
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def webserver(self) -> Webserver:
        return Webserver(url=f"http://127.0.0.1:{self.translation.ports['3000']}")

    @property
    def mark(self) -> str:
        return str(self.folder)

    def environment(self, name: str) -> dict[str, str]:
        """What the service's processes see: this machine's PATH, the image's and its own."""
        said = self.translation.environment(self.services[name].get("environment", {}))
        search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        base = {
            "PATH": search,
            "HOME": str(self.folder),
            "PYTHONPATH": str(DOCKER.parent),
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            MARK: self.mark,
        }
        return {**base, **said}

    def command(self, name: str) -> list[str]:
        """The service's very command, translated; Postgres has its image's."""
        if name == "postgres":
            port = self.translation.ports["5432"]
            return postgres_server.serve_command(self.postgres, self.folder / "pg" / "data", port)
        service = self.services[name]
        return self.translation.command([*service.get("entrypoint", []), *service["command"]])

    def start(self, name: str) -> None:
        """Start a service in a process group of its own."""
        user = postgres_server.user() if name == "postgres" else {}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # type: ignore[call-overload]
                self.command(name),
                env=self.environment(name),
                cwd=self.folder / "data" if name != "postgres" else self.folder / "pg",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user,
            )

    def run_once(self, name: str) -> None:
        """Run a service that ends by itself."""
        self.start(name)
        if self.processes.pop(name).wait(timeout=START_SECONDS):
            raise RuntimeError(self.log(name))

    def wait(self, name: str) -> None:
        """Wait for the service's own health check."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy(name):
            code = self.processes[name].poll()
            if code is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} ({code}): {self.log(name)}")
            time.sleep(0.3)

    def is_healthy(self, name: str) -> bool:
        """Run the health check of compose.yaml, web pages without a process for each."""
        words = self.services[name]["healthcheck"]["test"][1:]
        pages = [w for word in words for w in word.split("'") if w.startswith("http")]
        if pages:
            try:
                with urllib.request.urlopen(self.translation.text(pages[0]), timeout=5):
                    return True
            except OSError:
                return False
        if name == "code" and not _listens(self.translation.ports["4000"]):
            return False  # each call costs 2 CPU-seconds of imports
        command = self.translation.command(words)
        environment = self.environment(name)
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.returncode == 0

    def kill(self, name: str) -> None:
        """SIGKILL to all processes of a service, as the end of its container does it."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def living(self) -> list[psutil.Process]:
        """Every process of this stack, wherever it hangs in the tree."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get(MARK) == self.mark
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Processes of runs and trainings: what is below a code server but not one itself."""
        return [p for p in self.living() if _is_worker(p)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "spawn_main" in words or "ws_pipeline.backbone.train" in words


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def describe_stack(folder: Path) -> Stack:
    """Read compose.yaml and prepare folders, ports and the database's volume."""
    services = read_compose(SECRETS)["services"]
    named = ("5432", "8333", "9333", "9340", "8888", "5000", "4000", "3000")
    ports = dict(zip(named, free_ports(len(named)), strict=True))
    data, objects, dagster = (folder / name for name in ("data", "objects", "dagster"))
    for path in (data, objects, dagster, folder / "pg"):
        path.mkdir(parents=True, exist_ok=True)
    for name in ("dagster.yaml", "workspace.yaml"):
        (dagster / name).write_bytes((DOCKER / name).read_bytes())
    programs = postgres_server.install_postgres(folder / "pg")
    stack = Stack(
        folder=folder,
        services=services,
        translation=Translation(
            services=frozenset(services),
            ports=ports,
            folders={"/data": data, "/objects": objects, "/opt/dagster": dagster},
            programs=Path(sys.executable).parent,
            shortcuts={
                "pg_isready": str(programs / "pg_isready"),
                "ws_pipeline.definitions": "ws_pipeline_tests.deployment.short_definitions",
            },
        ),
        postgres=programs,
    )
    (volume,) = (v for v in services["postgres"]["volumes"] if "docker-entrypoint-initdb" in v)
    script = DOCKER / volume.split(":")[0]
    environment = services["postgres"]["environment"]
    postgres_server.initialize(programs, folder / "pg" / "data", environment, script)
    return stack


@contextlib.contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Everything, in compose's order of dependencies; nothing of it is left afterwards."""
    stack = describe_stack(folder)
    try:
        for name in ("postgres", "s3"):
            stack.start(name)
        for name in ("postgres", "s3"):
            stack.wait(name)
        stack.start("mlflow")  # the slowest; it and Dagster's part do not need each other to start
        for name in ONCE:
            stack.run_once(name)
        for name in ("code", "webserver", "daemon"):
            stack.start(name)
        for name in ("mlflow", "code", "webserver"):
            stack.wait(name)
        yield stack
    finally:
        for process in stack.living():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for started in stack.processes.values():
            started.wait()
