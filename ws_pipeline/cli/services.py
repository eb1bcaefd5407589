"""`ws-pipeline ui`: Dagster and MLflow on loopback, stopped by one Ctrl-C. Starts processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ws_pipeline.cli.arguments import MACHINE, HomeOption, add_command, find_home
from ws_pipeline.cli.console import err, out
from ws_pipeline.cli.home import prepare_home
from ws_pipeline.errors import Reason, RefusedError, WsPipelineError
from ws_pipeline.settings import TRACKING_VARIABLE, hide_credentials

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""`dagster dev` answers after about 20 s on two cores, MLflow after about 18 s."""
STOP_SECONDS = 30.0
POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A server that runs beside this process."""

    name: str
    port: int
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path

    @property
    def url(self) -> str:
        """Where people open it."""
        return f"http://{HOST}:{self.port}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        ui,
        "ws-pipeline ui",
        "ws-pipeline --home /data ui --port 3001 --mlflow-port 5001",
        panel=MACHINE,
    )


def ui(
    port: Annotated[int, typer.Option("--port", help="Port of Dagster.")] = 3000,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", help="Port of MLflow.")] = 5000,
    home: HomeOption = None,
) -> None:
    """Open Dagster and MLflow on what was made, on loopback, until Ctrl-C.

    Where a tracking server is named (mlflow_tracking_uri), that one is shown and none is started.
    """
    folder = prepare_home(find_home(home))
    check_port(port, "--port")
    services = [describe_dagster(folder, port)]
    server = find_tracking_server()
    if not server:
        check_port(mlflow_port, "--mlflow-port")
        services.append(describe_mlflow(folder, mlflow_port))
    with start_services(services) as processes:
        for service in services:
            err().print(f"starting {service.name} (log: {service.log})", markup=False)
        wait_until_up(services, processes)
        for service in services:
            out().print(f"{service.name:8} {service.url}", markup=False)
        if server:
            out().print(f"{'MLflow':8} {hide_credentials(server)}", markup=False)
        out().print("Ctrl-C stops what was started here.")
        watch(services, processes)


def describe_dagster(home: Path, port: int) -> Service:
    """Return webserver and daemon over the home's instance."""
    from ws_pipeline.defs.instance import prepare_instance

    return Service(
        name="Dagster",
        port=port,
        command=[
            *(sys.executable, "-m", "dagster", "dev", "--host", HOST, "--port", str(port)),
            *("-m", "ws_pipeline.definitions"),
        ],
        environment={"DAGSTER_HOME": str(prepare_instance(home)), "WS_HOME": str(home)},
        log=home / "logs" / "dagster.log",
    )


def find_tracking_server() -> str:
    """Return the URL of the MLflow server that trainings log to; "" for a database."""
    named = os.environ.get(TRACKING_VARIABLE) or ""
    return named if named.startswith(("http://", "https://")) else ""


def describe_mlflow(home: Path, port: int) -> Service:
    """Return the tracking server over the home's store: one worker, no job processes."""
    folder = home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    store = os.environ.get(TRACKING_VARIABLE) or f"sqlite:///{folder / 'mlflow.db'}"
    return Service(
        name="MLflow",
        port=port,
        command=[
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)),
            *("--workers", "1", "--backend-store-uri", store),
            *("--artifacts-destination", (folder / "artifacts").as_uri()),
        ],
        environment={
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Its job processes would outlive SIGTERM (seen with 3.17).
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        log=home / "logs" / "mlflow.log",
    )


def check_port(port: int, option: str) -> None:
    """Refuse a port that something listens on.

    Raises:
        RefusedError: Names the option that chooses another.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise RefusedError(
                f"Port {port} of {HOST} cannot be had ({error}); stop what uses it, or choose "
                f"another one with {option}.",
                reason=Reason.PORT_IN_USE,
            ) from error


@contextlib.contextmanager
def start_services(services: Sequence[Service]) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start the services, each in a process group of its own, and stop all of them at the end."""
    processes: list[subprocess.Popen[bytes]] = []
    # SIGINT too: a shell's `&` starts us with SIGINT ignored.
    before = {n: signal.signal(n, _interrupt) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        for service in services:
            service.log.parent.mkdir(parents=True, exist_ok=True)
            with service.log.open("wb") as log:
                processes.append(
                    subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                        service.command,
                        env={**os.environ, **service.environment},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        preexec_fn=_listen_to_interrupts,  # noqa: PLW1509 - no threads yet
                    )
                )
        yield processes
    finally:
        stop_processes(processes)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _listen_to_interrupts() -> None:
    """Undo the SIGINT that a shell's ``&`` ignores: Dagster's handler of SIGTERM is SIGINT's."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_processes(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ask the groups to end, and kill what is left of them."""
    _signal_groups(processes, signal.SIGTERM)
    _wait_for_groups(processes, STOP_SECONDS)
    _signal_groups(processes, signal.SIGKILL)
    for process in processes:
        process.wait()


def _signal_groups(processes: Sequence["subprocess.Popen[bytes]"], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _wait_for_groups(processes: Sequence["subprocess.Popen[bytes]"], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(_group_lives(p) for p in processes):
        time.sleep(POLL_SECONDS)


def _group_lives(process: "subprocess.Popen[bytes]") -> bool:
    process.poll()  # reaps the leader, which would keep the group alive as a zombie
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def wait_until_up(
    services: Sequence[Service],
    processes: Sequence["subprocess.Popen[bytes]"],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until every service listens.

    Raises:
        WsPipelineError: One ended, or takes longer than START_SECONDS.
    """
    deadline = time.monotonic() + START_SECONDS
    for service, process in zip(services, processes, strict=True):
        while not _listens(service.port):
            _check_alive(service, process)
            if time.monotonic() > deadline:
                raise WsPipelineError(
                    f"{service.name} did not answer within {START_SECONDS:.0f} s; "
                    f"its log is {service.log}."
                )
            sleep(POLL_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _check_alive(service: Service, process: "subprocess.Popen[bytes]") -> None:
    code = process.poll()
    if code is not None:
        raise WsPipelineError(
            f"{service.name} ended with code {code}; its log is {service.log}, and "
            "ws-pipeline doctor says what may be missing."
        )


def watch(services: Sequence[Service], processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Wait until interrupted, or until a service ends by itself."""
    while True:
        for service, process in zip(services, processes, strict=True):
            _check_alive(service, process)
        time.sleep(POLL_SECONDS)
