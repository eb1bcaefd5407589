"""A header that would kill or hang its parser costs itself, and nothing beside it."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ws_pipeline.errors import HeaderError, Reason
from ws_pipeline.weights import header_pool
from ws_pipeline.weights.header import parse_header_record
from ws_pipeline.weights.header_pool import HeaderPool, parse_header_apart
from ws_pipeline_tests.weights.safetensors_bytes import entry, make_file, wrap


@pytest.fixture
def pool() -> Iterator[HeaderPool]:
    with HeaderPool(max_inline_bytes=0) as pool:
        yield pool


SMALL = make_file({"a": np.zeros((2, 3), np.float32)})


def script(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Replace the worker by a script of the test's own."""
    real = subprocess.Popen

    def start(command: list[str], **options: object) -> object:
        return real([command[0], "-c", body], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(header_pool.subprocess, "Popen", start)


def test_a_worker_says_what_the_parser_says(pool: HeaderPool) -> None:
    assert pool.parse(SMALL, len(SMALL)) == parse_header_record(SMALL, len(SMALL))
    bad = wrap('{"w":[]}')
    with pytest.raises(HeaderError, match="'w' must have exactly dtype") as caught:
        pool.parse(bad, len(bad))
    assert caught.value.reason is Reason.HEADER_INVALID
    assert pool.parse(SMALL, len(SMALL))["num_bytes"] == 24
    assert len(pool._idle) == 1  # the same process answered all three


def test_the_ordinary_header_starts_no_process() -> None:
    with HeaderPool() as pool:
        assert pool.parse(SMALL, len(SMALL))["num_bytes"] == 24
        assert pool._idle == []


def test_a_long_header_is_parsed_apart_and_read_alike() -> None:
    entries = {f"layers.{i}.weight": entry("U8", [1], i, i + 1) for i in range(6000)}
    raw = wrap(json.dumps(entries), b"\0" * 6000)
    assert len(raw) > header_pool.MAX_INLINE_BYTES
    assert parse_header_apart(raw, len(raw)) == parse_header_record(raw, len(raw))
    assert len(header_pool._pool(os.getpid())._idle) == 1
    header_pool._pool(os.getpid()).close()


LYING = r"import sys, time; sys.stdout.buffer.write(b'\xff' * 8); sys.stdout.flush(); time.sleep(9)"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Reason.HEADER_NOT_PARSED),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", Reason.HEADER_TOO_COSTLY),
        ("import time; time.sleep(60)", Reason.HEADER_NOT_PARSED),
        ("import sys; sys.stdout.write('x'); sys.exit(3)", Reason.HEADER_NOT_PARSED),
        (LYING, Reason.HEADER_NOT_PARSED),
    ],
)
def test_a_parser_that_dies_or_hangs_is_a_reason_and_the_next_header_is_read(
    monkeypatch: pytest.MonkeyPatch, body: str, reason: Reason
) -> None:
    with HeaderPool(max_inline_bytes=0, max_wall_seconds=0.7) as pool:
        with monkeypatch.context() as patched:
            script(patched, body)
            started = time.monotonic()
            with pytest.raises(HeaderError) as caught:
                pool.parse(SMALL, len(SMALL))
            assert time.monotonic() - started < 10
        assert caught.value.reason is reason
        pool._max_wall_seconds = 60.0
        assert pool.parse(SMALL, len(SMALL))["num_bytes"] == 24


def test_a_parser_killed_between_two_headers_is_replaced_by_the_third(pool: HeaderPool) -> None:
    pool.parse(SMALL, len(SMALL))
    pool._idle[0].send_signal(signal.SIGKILL)
    pool._idle[0].wait()
    with pytest.raises(HeaderError, match="tried again in the next run"):
        pool.parse(SMALL, len(SMALL))
    assert pool.parse(SMALL, len(SMALL))["num_bytes"] == 24


WORKER = """
import sys
from ws_pipeline.weights import header_worker
def bomb(raw, file_bytes):
    {what}
header_worker.parse_header_record = bomb
header_worker.MAX_CPU_SECONDS = 0
header_worker.limit_memory({num_bytes})
header_worker.serve(sys.stdin.buffer, sys.stdout.buffer)
"""


@pytest.mark.parametrize("what", ["return list(range(10**9))", "while True: pass"])
def test_the_limits_stop_what_the_parser_would_not(
    monkeypatch: pytest.MonkeyPatch, pool: HeaderPool, what: str
) -> None:
    script(monkeypatch, WORKER.format(what=what, num_bytes=64 * 2**20))
    with pytest.raises(HeaderError, match="its parser may take") as caught:
        pool.parse(SMALL, len(SMALL))
    assert caught.value.reason is Reason.HEADER_TOO_COSTLY


def test_threads_share_the_pool(pool: HeaderPool) -> None:
    found: list[int] = []

    def parse() -> None:
        found.append(pool.parse(SMALL, len(SMALL))["num_bytes"])

    threads = [threading.Thread(target=parse) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [24] * 6
    assert len(pool._idle) <= header_pool.MAX_WORKERS


def test_a_worker_knows_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with HeaderPool(max_inline_bytes=0) as pool:
        pool.parse(SMALL, len(SMALL))
        assert b"hf_secret" not in Path(f"/proc/{pool._idle[0].pid}/environ").read_bytes()


SHAPES = {
    "tensors": (b'{"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}', b"", b"}"),
    "metadata": (b'{"__metadata__":{"":""', b',"%x":""', b"}}"),
    "rank": (b'{"w":{"dtype":"U8","shape":[1', b",1", b'],"data_offsets":[0,0]}}'),
    "strings": (b'{"w":[""', b',""', b"]}"),
    "objects": (b'{"":{}', b',"%x":{}', b"}"),
    "brackets": (b'{"w":', b"[", b"}"),
    "quotes": (b"{", b'"', b"}"),
    "escapes": (b'{"', b"\\u00e9", b'":1}'),
    "spaces": (b"{", b" ", b"}"),
    "digits": (b'{"w":', b"9", b"}"),
    "many": (b"{", b'"%x":{"dtype":"U8","shape":[],"data_offsets":[0,0]},', b'"":1}'),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_header_parsed_inline_cannot_cost_much_whatever_its_shape(shape: str) -> None:
    start, unit, end = SHAPES[shape]
    text = bytearray(start)
    number = 0
    while unit and len(text) < header_pool.MAX_INLINE_BYTES - 100:
        text += unit % number if b"%x" in unit else unit
        number += 1
    raw = wrap(bytes(text) + end)
    gc.collect()
    gc.freeze()  # else collections walk what thousands of tests left, on this header's account
    try:
        started = time.process_time()
        with contextlib.suppress(HeaderError):
            parse_header_record(raw, len(raw))
        assert time.process_time() - started < 1.0
    finally:
        gc.unfreeze()
    tracemalloc.start()
    try:
        with contextlib.suppress(HeaderError):
            parse_header_record(raw, len(raw))
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()
