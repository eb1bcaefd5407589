"""A process that parses headers of strangers under hard limits of memory and processor time.

What it is: a loop over requests on stdin, each answered on stdout, under ``RLIMIT_AS`` and
``RLIMIT_CPU``; ``python -m ws_pipeline.weights.header_worker`` runs it. What it is not: the pool
that starts, feeds and buries such processes (``header_pool``). Does I/O on its pipes only, and
needs no token, so none is in its environment.

A request is two 8-byte little-endian numbers (length of the prefix, size of the file) and the
prefix; an answer is an 8-byte length and a JSON object with ``record``, or ``reason`` and
``detail``. It ends when stdin does, which is also when its parent was killed.
"""

import json
import resource
import sys
from pathlib import Path
from typing import BinaryIO

from ws_pipeline.errors import HeaderError, Reason
from ws_pipeline.weights.header import parse_header_record

MAX_WORKER_BYTES = 256 * 2**20
"""Beyond what the idle process maps: 200,000 tensors, the most a header may hold, take 210 MB."""
MAX_CPU_SECONDS = 10
"""200,000 tensors take 4 s on a core of 2023."""

NUMBER_BYTES = 8


def limit_memory(num_bytes: int) -> None:
    """Cap the address space at what is mapped now and ``num_bytes``, where the system can tell."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():  # not Linux: the caps of the parser itself remain
        return
    mapped = int(statistics.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + num_bytes, mapped + num_bytes))


def limit_cpu(seconds: int) -> None:
    """Let the process die of SIGXCPU after ``seconds`` more of processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = used + seconds if hard == resource.RLIM_INFINITY else min(used + seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def answer_request(raw: bytes, file_bytes: int) -> bytes:
    """Return the answer to one request as JSON."""
    try:
        return json.dumps({"record": parse_header_record(raw, file_bytes)}).encode()
    except HeaderError as error:
        return json.dumps({"reason": str(error.reason), "detail": str(error)}).encode()
    except MemoryError:
        detail = f"its parser may take {MAX_WORKER_BYTES} bytes of memory and needed more"
        return json.dumps({"reason": str(Reason.HEADER_TOO_COSTLY), "detail": detail}).encode()


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until the source ends."""
    while len(head := source.read(2 * NUMBER_BYTES)) == 2 * NUMBER_BYTES:
        num_bytes = int.from_bytes(head[:NUMBER_BYTES], "little")
        file_bytes = int.from_bytes(head[NUMBER_BYTES:], "little")
        limit_cpu(MAX_CPU_SECONDS)
        answer = answer_request(source.read(num_bytes), file_bytes)
        sink.write(len(answer).to_bytes(NUMBER_BYTES, "little"))
        sink.write(answer)
        sink.flush()


if __name__ == "__main__":
    limit_memory(MAX_WORKER_BYTES)
    serve(sys.stdin.buffer, sys.stdout.buffer)
