"""Headers parsed where a hostile one cannot take the caller down with it.

What it is: small headers are parsed here, since their size bounds what they can cost; larger ones
in a few processes that have hard limits (``header_worker``). A process that dies or hangs costs its
one header, which gets a reason, and is replaced. What it is not: the parser (``header``). Starts
processes; no other I/O.

Numbers (one core of 2023, worst of eleven hostile shapes): a header of 256 KiB takes at most 0.05 s
and 10 MB; one of 16 MiB, the cap, up to 4 s and 210 MB. A warm process adds 1 ms and about 40 ns
per byte of its answer; the first one starts in 0.4 s. 98 % of the public hub's files have headers
below 100 kB.
"""

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ws_pipeline.errors import HeaderError, Reason
from ws_pipeline.weights.header import LENGTH_BYTES, parse_header_record, read_header_bytes
from ws_pipeline.weights.header_worker import MAX_CPU_SECONDS, NUMBER_BYTES

MAX_INLINE_BYTES = 256 * 2**10
"""A header up to here is parsed in the caller's own process; see the module's numbers."""
MAX_WALL_SECONDS = 60.0
"""Six times the processor time a worker may use: it waits for something, or the machine swaps."""
MAX_WORKERS = 2
"""Large headers are rare; more processes would only hold memory."""
MAX_ANSWER_BYTES = 128 * 2**20
"""200,000 tensors with names of 100 bytes make 50 MB."""

_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


def parse_header_apart(raw: bytes, file_bytes: int) -> dict[str, Any]:
    """Parse a header into ``parse_header_record``'s record, a large one in another process.

    Raises:
        HeaderError: As the parser says; ``header_too_costly`` where it would take more memory or
            processor time than allowed; ``header_not_parsed`` where its process died or hung for
            another cause, which the next run may not meet.
    """
    return _pool(os.getpid()).parse(raw, file_bytes)


class HeaderPool:
    """A few processes that parse large headers; started when needed. Safe to share by threads.

    Args:
        max_inline_bytes: Headers up to here are parsed in the caller's process.
        max_wall_seconds: After which a worker counts as hung.
    """

    def __init__(
        self,
        *,
        max_inline_bytes: int = MAX_INLINE_BYTES,
        max_wall_seconds: float = MAX_WALL_SECONDS,
    ) -> None:
        self._max_inline_bytes = max_inline_bytes
        self._max_wall_seconds = max_wall_seconds
        self._slots = threading.BoundedSemaphore(MAX_WORKERS)
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "HeaderPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the idle processes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            _end(worker)

    def parse(self, raw: bytes, file_bytes: int) -> dict[str, Any]:
        """See :func:`parse_header_apart`."""
        header_bytes = read_header_bytes(raw, file_bytes=file_bytes)
        if header_bytes <= self._max_inline_bytes + LENGTH_BYTES:
            return parse_header_record(raw, file_bytes)
        with self._slots, self._worker() as worker:
            answer = self._ask(worker, raw[:header_bytes], file_bytes)
        if "record" not in answer:
            raise HeaderError(answer["detail"], reason=Reason(answer["reason"]))
        record: dict[str, Any] = answer["record"]
        return record

    @contextlib.contextmanager
    def _worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """Lend a process; one that did not answer, whatever the cause, is not used again."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _start_worker()
        try:
            yield worker
        except BaseException:
            _end(worker)
            raise
        with self._lock:
            self._idle.append(worker)

    def _ask(self, worker: subprocess.Popen[bytes], raw: bytes, file_bytes: int) -> dict[str, Any]:
        timer = threading.Timer(self._max_wall_seconds, worker.kill)
        timer.start()
        try:
            answer = _exchange(worker, raw, file_bytes)
        except OSError:  # the process died while it was written to
            answer = None
        finally:
            timer.cancel()
            timer.join()
        if answer is not None:
            return answer
        status = worker.wait()
        if status == -signal.SIGXCPU:
            raise HeaderError(
                f"its parser may take {MAX_CPU_SECONDS} s of processor time and needed more",
                reason=Reason.HEADER_TOO_COSTLY,
            )
        raise HeaderError(
            f"the process that parses it ended with status {status} or took more than "
            f"{self._max_wall_seconds:.0f} s; it is tried again in the next run",
            reason=Reason.HEADER_NOT_PARSED,
        )


@functools.lru_cache(maxsize=1)
def _pool(pid: int) -> HeaderPool:  # noqa: ARG001 - a forked child must not share its parent's pipes
    pool = HeaderPool()
    atexit.register(pool.close)
    return pool


def _start_worker() -> subprocess.Popen[bytes]:
    """Start a process that has nothing but the way to this package in its environment."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    package = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "ws_pipeline.weights.header_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # One BLAS thread: each further one maps memory that counts against the limit.
        env=kept | {"PYTHONPATH": package, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


def _exchange(
    worker: subprocess.Popen[bytes], raw: bytes, file_bytes: int
) -> dict[str, Any] | None:
    """Return the worker's answer, or None where it gave none."""
    if worker.stdin is None or worker.stdout is None:
        return None
    for number in (len(raw), file_bytes):
        worker.stdin.write(number.to_bytes(NUMBER_BYTES, "little"))
    worker.stdin.write(raw)
    worker.stdin.flush()
    head = worker.stdout.read(NUMBER_BYTES)
    num_bytes = int.from_bytes(head, "little")
    if len(head) < NUMBER_BYTES or num_bytes > MAX_ANSWER_BYTES:
        worker.kill()
        return None
    body = worker.stdout.read(num_bytes)
    if len(body) < num_bytes:
        return None
    answer: dict[str, Any] = json.loads(body)
    return answer


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill a process and free its pipes; what it was about to say is of no use."""
    worker.kill()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not yet written to the dead
                pipe.close()
    worker.wait()
