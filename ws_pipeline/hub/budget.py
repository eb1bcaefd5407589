"""How many requests a token has left, known to every process that uses it.

What it is: one small JSON file per token and origin, changed under a file lock, that holds what the
hub's ``RateLimit`` headers said last, minus what was sent since. A request is counted before it
goes out, and one that would meet a 429 waits for the window's end instead. What it is not: the
pause after a failure (``retries``), or a queue: who wakes first asks first. Does file I/O where a
path is given; without one, the budget is that of this process alone.

A token's name on disk is a digest; the token itself is nowhere.

Source: https://huggingface.co/docs/hub/rate-limits: fixed windows of five minutes, one for the API,
one for files, one for pages; the headers stand on every answer.
"""

import contextlib
import fcntl
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

Bucket = Literal["api", "resolvers"]
"""What a request counts as: a question to the API, or (part of) a file."""

RESERVED_REQUESTS = 2
"""Left in a window for what else uses the token; the smallest window has 100."""

MAX_WINDOW_SECONDS = 330.0
"""The hub's windows are 300 s long. A longer wait is a broken clock, ours or the hub's."""

SAME_WINDOW_SECONDS = 5.0
"""Two answers of one window state its end to the second, and travel for a while."""

MAX_STATE_BYTES = 4096


class RateBudget:
    """The budget of one token on one origin. Safe to share between threads and processes.

    Args:
        path: The shared file; None for this process alone.
        clock: Seconds since the epoch, the same for all processes.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._own: dict[str, Any] = {}

    def reserve(self, bucket: Bucket) -> float:
        """Count a request that is about to go out; return how many seconds it has to wait first."""
        with self._state() as state:
            window = state.get(bucket)
            if window is None:
                return 0.0
            left = min(window["ends_at"] - self._clock(), MAX_WINDOW_SECONDS)
            if left <= 0:
                del state[bucket]
                return 0.0
            if window["remaining"] <= RESERVED_REQUESTS:
                return float(left)
            window["remaining"] -= 1
            return 0.0

    def record(self, bucket: Bucket, *, remaining: int, reset_seconds: float) -> None:
        """Take over what an answer's headers said.

        Within a window the smaller number counts: requests under way are counted here already.
        """
        ends_at = self._clock() + min(max(reset_seconds, 0.0), MAX_WINDOW_SECONDS)
        with self._state() as state:
            known = state.get(bucket)
            if known is not None and abs(known["ends_at"] - ends_at) <= SAME_WINDOW_SECONDS:
                remaining = min(remaining, known["remaining"])
            state[bucket] = {"remaining": max(remaining, 0), "ends_at": ends_at}

    @contextlib.contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        with self._lock:
            if self._path is None:
                yield self._own
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or we die
                file.seek(0)
                before = file.read(MAX_STATE_BYTES)
                state = _decode(before)
                yield state
                after = json.dumps(state).encode()
                if after != before:
                    file.truncate(0)
                    file.write(after)


def budget_path(folder: Path, endpoint: str, token: str | None) -> Path:
    """Return where the budget of a token on a hub lies below ``folder``."""
    digest = hashlib.sha256(f"{endpoint.rstrip('/')}\0{token or ''}".encode()).hexdigest()
    return folder / f"{digest[:24]}.json"


def _decode(data: bytes) -> dict[str, Any]:
    """Return a stored state; a damaged one (a kill, a full disk) is an empty one."""
    try:
        state = json.loads(data)
    except ValueError:
        return {}
    return {name: w for name, w in state.items() if _is_window(w)} if _is_map(state) else {}


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_window(value: Any) -> bool:
    return (
        _is_map(value)
        and isinstance(value.get("remaining"), int)
        and isinstance(value.get("ends_at"), float)
    )
