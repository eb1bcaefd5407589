"""A real S3 protocol server for the tests: SeaweedFS on free loopback ports, killed at the end."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

KEY, SECRET, BUCKET = "test-key", "test-secret", "weights"
START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class S3Server:
    endpoint: str

    @property
    def storage_options(self) -> dict[str, Any]:
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.endpoint}


def free_ports(count: int) -> list[int]:
    """Free ports whose gRPC neighbours (+10000) exist too."""
    sockets = []
    ports: list[int] = []
    while len(ports) < count:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sockets.append(sock)
        port = sock.getsockname()[1]
        if port < 55000:
            ports.append(port)
    for sock in sockets:
        sock.close()
    return ports


@contextlib.contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    names = ["s3", "master", "volume", "filer"]
    ports = dict(zip(names, free_ports(4), strict=True))
    command = [
        str(Path(sys.executable).parent / "weed"), "mini", f"-dir={folder}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        *(f"-{name}.port={port}" for name, port in ports.items()),
    ]  # fmt: skip
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        try:
            server = S3Server(endpoint=f"http://127.0.0.1:{ports['s3']}")
            _wait_until_it_answers(server, process, folder / "log")
            yield server
        finally:
            process.kill()  # a graceful stop takes 29 s
            process.wait()


def _wait_until_it_answers(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            filesystem = fsspec.filesystem(
                "s3", **server.storage_options, use_listings_cache=False, skip_instance_cache=True
            )
            filesystem.mkdir(BUCKET)
        except Exception:  # noqa: BLE001 - whatever a server that is not up yet does
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-2000:]) from None
            time.sleep(0.1)
        else:
            return
