"""A hub's bad days: a share of the requests is answered wrongly, by a seed.

What it is: an ASGI application around another one. What it is not: what a client should make of
it (``transport``, ``client``). No I/O of its own.

A damaged body is always recognisable: bytes that are still a sound page, only another one, no
client can tell from the truth; the next listing corrects them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Literal

from ws_pipeline.errors import ConfigError

Fault = Literal[
    "429",
    "500",
    "504",
    "hang",
    "cut",
    "corrupt",
    "range",
    "redirect_loop",
    "link_loop",
    "link_away",
    "revision",
]
FAULTS: tuple[Fault, ...] = (
    *("429", "500", "504", "hang", "cut", "corrupt"),
    *("range", "redirect_loop", "link_loop", "link_away", "revision"),
)
"""``revision``: the sha changed in mid-download, what comes is a part of other bytes."""

LOOP = "/redirect-loop"
DAMAGE_BYTES = 16

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_Headers = list[tuple[bytes, bytes]]


class FaultInjector:
    """ASGI: an application with faults.

    Args:
        app: The sound one.
        share: Of the requests, 0 to 1.
        seed: Of which requests, and what happens to them.
        kinds: Which faults; one that does not fit the answer (a wrong range of a listing) is a 500.
        hang_seconds: Silence before a hanging request ends in a 504.
    """

    def __init__(
        self,
        app: Any,
        *,
        share: float,
        seed: int,
        kinds: Sequence[Fault] = FAULTS,
        hang_seconds: float = 45.0,
    ) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"The share of faults is between 0 and 1; got {share}.")
        self.app = app
        self.share = share
        self.kinds = list(kinds)
        self.hang_seconds = hang_seconds
        self.num_requests = 0
        self.num_faults = 0
        self._random = random.Random(seed)  # noqa: S311 - a simulation

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.num_requests += 1
        if scope["path"].startswith(LOOP):
            await _answer(send, 302, [(b"location", scope["path"].encode())])
            return
        draw, fault = self._random.random(), self._random.choice(self.kinds)
        if draw >= self.share:
            await self.app(scope, receive, send)
            return
        self.num_faults += 1
        await self._fail(fault, scope, receive, send)

    async def _fail(self, fault: Fault, scope: _Message, receive: _Receive, send: _Send) -> None:
        if fault == "hang":
            await asyncio.sleep(self.hang_seconds)
            await _answer(send, 504, [])
        elif fault == "429":
            limit = (b"ratelimit", b'"api";r=0;t=1')
            await _answer(send, 429, [(b"retry-after", b"1"), limit])
        elif fault in ("500", "504"):
            await _answer(send, int(fault), [])
        elif fault == "redirect_loop":
            await _answer(send, 302, [(b"location", LOOP.encode())])
        else:
            status, headers, body = await _collect(self.app, scope, receive)
            damaged = _damage(fault, scope, headers, body)
            if damaged is None:
                await _answer(send, 500, [])
            else:
                await _answer(send, status, *damaged)


def _damage(
    fault: Fault, scope: _Message, headers: _Headers, body: bytes
) -> tuple[_Headers, bytes] | None:
    """Return a wrong version of an answer; None where the fault does not fit it."""
    names = {name for name, _ in headers}
    kept = [(name, value) for name, value in headers if name != b"content-length"]
    if fault == "cut" and len(body) > 1:
        return kept, body[: len(body) // 2]
    if fault == "corrupt" and body:
        middle = len(body) // 2
        hole = b"\xff" * min(DAMAGE_BYTES, len(body) - middle)
        return headers, body[:middle] + hole + body[middle + len(hole) :]
    if fault == "range" and b"content-range" in names:
        return _replace(headers, b"content-range", b"bytes 1-1/2"), body
    if fault == "revision" and b"x-repo-commit" in names:
        return _replace(headers, b"x-repo-commit", b"0" * 40), body[::-1]
    if fault in ("link_loop", "link_away") and b"link" in names:
        here = f"{scope['path']}?{scope['query_string'].decode()}"
        target = here if fault == "link_loop" else "https://elsewhere.invalid/api/models"
        return _replace(headers, b"link", f'<{target}>; rel="next"'.encode()), body
    return None


def _replace(headers: _Headers, name: bytes, value: bytes) -> _Headers:
    return [(key, value if key == name else old) for key, old in headers]


async def _collect(app: Any, scope: _Message, receive: _Receive) -> tuple[int, _Headers, bytes]:
    """Return what an application answers."""
    status, headers, body = 500, [], bytearray()

    async def send(message: _Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message["headers"])
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, headers, bytes(body)


async def _answer(send: _Send, status: int, headers: _Headers, body: bytes = b"") -> None:
    if not body:
        headers = [*headers, (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
