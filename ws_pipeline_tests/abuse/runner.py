"""Runs cases in processes of their own and reports what each did: `python -m ... FOLDER`.

One warm process forks a child per case, so that a case costs milliseconds, starts from the same
memory, and can be killed. A line on stdin is a JSON request, a line on stdout the JSON outcome.
"""

import json
import logging
import os
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import httpx2
import psutil

from ws_pipeline.errors import WsPipelineError
from ws_pipeline.hub import transport
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.retries import RetryPolicy
from ws_pipeline.storage.store import Store
from ws_pipeline.weights import header_pool
from ws_pipeline_tests.abuse.case import HARMLESS, TOKEN, Case, Context
from ws_pipeline_tests.abuse.corpus import CASES

MAX_SECONDS = 20.0
"""After which a child is killed; the corpus' own bound is 5, measured inside."""
MAX_MAPPED_BYTES = 2 * 2**30
"""Beyond what the child starts with; keeps the machine alive if a case gets through."""

WRITES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod"}
FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Records(logging.Handler):
    """Keeps every log record of every logger as text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def status_bytes(name: str, pid: int | str = "self") -> int:
    """One of the kernel's numbers on a process, VmRSS or VmHWM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def watch_writes(written: list[str]) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and flags and flags & FLAGS:
                written.append(os.fsdecode(path))
        elif event in WRITES:
            written.extend(
                os.fsdecode(part) for part in arguments[:2] if isinstance(part, (str, bytes))
            )
        elif event in {"os.system", "subprocess.Popen", "os.exec"}:
            program = str(arguments[0])
            if not program.endswith(("/python", "/python3", "/python3.11")):
                written.append(f"started {program}")

    sys.addaudithook(hook)


def perform(case: Case, context: Context, value: Any) -> dict[str, str]:
    try:
        case.run(context, value)
    except WsPipelineError as error:
        return {
            "reason": str(error.reason),
            "says": str(error),
            "text": "".join(traceback.format_exception(error)),
        }
    except BaseException as error:  # noqa: BLE001 - whatever else it is, it is a finding
        return {
            "reason": f"not refused but {type(error).__name__}",
            "says": str(error)[:500],
            "text": "".join(traceback.format_exception(error))[-4000:],
        }
    return {"reason": HARMLESS, "says": "", "text": ""}


def run_case(case: Case, endpoint: str, folder: Path) -> dict[str, Any]:
    """In the child: run the case and measure it."""
    before = status_bytes("VmRSS")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MAX_MAPPED_BYTES, hard))
    records, written = Records(), []
    logging.basicConfig(level=logging.DEBUG, handlers=[records], force=True)
    transport.TIMEOUT = httpx2.Timeout(1.0)
    transport.DEADLINE_SECONDS = 2.0
    value = case.make()
    context = Context(
        client=HubClient(
            endpoint, TOKEN, retries=RetryPolicy(max_attempts=2, sleep=lambda _: None)
        ),
        store=Store.open(folder / "store" / str(os.getpid())),
    )
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the input
    watch_writes(written)
    started, cpu_started = time.monotonic(), time.process_time()
    outcome: dict[str, Any] = dict(perform(case, context, value))
    outcome["seconds"] = time.monotonic() - started
    outcome["allocated_bytes"] = status_bytes("VmHWM") - before
    workers = header_pool._pool(os.getpid())._idle
    outcome["worker_bytes"] = max((status_bytes("VmHWM", w.pid) for w in workers), default=0)
    outcome["cpu_seconds"] = time.process_time() - cpu_started
    outcome["cpu_seconds"] += sum(sum(psutil.Process(w.pid).cpu_times()[:2]) for w in workers)
    outcome["logs"] = records.lines
    outcome["written"] = written
    return outcome


def fork_case(case: Case, endpoint: str, folder: Path) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            outcome = json.dumps(run_case(case, endpoint, folder)).encode()
        except BaseException as error:  # noqa: BLE001 - the parent has to hear of it
            outcome = json.dumps({"reason": f"the runner failed: {error!r}"}).encode()
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(outcome)
        header_pool._pool(os.getpid()).close()
        os._exit(0)
    os.close(writer)
    deadline, parts = time.monotonic() + MAX_SECONDS, []
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reader, 1 << 20)
        if not part:
            break
        parts.append(part)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if status:
        return {"reason": f"the process ended with {status}"}
    outcome: dict[str, Any] = json.loads(b"".join(parts))
    return outcome


def main() -> None:
    folder = Path(sys.argv[1])
    print("ready", flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        request = json.loads(line)
        outcome = fork_case(CASES[request["case"]], request["endpoint"], folder)
        print(json.dumps(outcome), flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    main()
