"""What compose's `postgres` image does, by the Postgres binaries that a wheel of PyPI brings."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

NOBODY = 65534
_PACKAGE = Path(sys.prefix) / "lib/python3.11/site-packages"


def install_postgres(folder: Path) -> Path:
    """Return the folder of Postgres's programs.

    Postgres refuses to run as root, and another user cannot look into root's folders: there the
    programs (34 MB) are copied to one that it can read.
    """
    installed = _PACKAGE / "pgserver" / "pginstall"
    if os.geteuid() != 0:
        return installed / "bin"
    shutil.copytree(installed, folder / "pgserver/pginstall", dirs_exist_ok=True)
    shutil.copytree(_PACKAGE / "pgserver.libs", folder / "pgserver.libs", dirs_exist_ok=True)
    return folder / "pgserver/pginstall/bin"


def user() -> dict[str, object]:
    """Arguments of Popen for a user that Postgres accepts."""
    if os.geteuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def initialize(programs: Path, data: Path, environment: Mapping[str, str], script: Path) -> None:
    """What the image's entry point does on an empty volume: the user, the database, the script."""
    data.mkdir(parents=True)
    password = data.parent / "password"
    password.write_text(environment["POSTGRES_PASSWORD"])
    if os.geteuid() == 0:
        for path in (data, password):
            os.chown(path, NOBODY, NOBODY)
    name = environment["POSTGRES_USER"]
    options = ["-U", name, f"--pwfile={password}", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"]
    _run([programs / "initdb", "-D", data, *options])
    statements = f"CREATE DATABASE {environment['POSTGRES_DB']};\n{script.read_text()}"
    _run([programs / "postgres", "--single", "-j", "-D", data, "postgres"], statements)


def _run(command: list[object], text: str = "") -> None:
    words = [str(word) for word in command]
    # One statement each: `-j` ends them at an empty line.
    text = text.replace(";\n", ";\n\n")
    done = subprocess.run(words, input=text.encode(), capture_output=True, check=False, **user())  # type: ignore[call-overload]
    if done.returncode or b"ERROR" in done.stderr:
        raise RuntimeError(done.stderr.decode())


def serve_command(programs: Path, data: Path, port: int) -> list[str]:
    """The server on loopback alone, as its image starts it but for the addresses."""
    return [
        *(str(programs / "postgres"), "-D", str(data), "-p", str(port)),
        *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
        *("-c", "fsync=off"),
    ]
