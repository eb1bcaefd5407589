"""What a hostile input is: how it is made, what is done with it, and what has to come of it."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ws_pipeline.hub.client import HubClient
from ws_pipeline.storage.store import Store

TOKEN = "hf_secretTokenOfTheAbuseCorpus"
SIGNATURE = "X-Amz-Signature=5e0ff1gnedSecret"
"""What the query of a signed URL holds; as secret as the token."""

HARMLESS = "harmless"
"""Outcome of an input that is not refused, since honest hubs send the like, and does nothing."""

SHA = "a" * 40
REPO = "owner/name"


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a case is done to."""

    client: HubClient
    store: Store


Answer = Callable[[str, str], Iterable[bytes]]
"""(head of the request, URL of another origin) -> the raw bytes that the hub sends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A hostile input.

    Attributes:
        reason: The code it is refused with, or HARMLESS.
        make: Builds the input; its own memory and time do not count.
        run: Hands the input to the code under test.
        says: Part of the refusal's message.
        answer: What the hub answers, for cases that go over the network.
    """

    surface: str
    name: str
    reason: str
    run: Callable[[Context, Any], object]
    make: Callable[[], Any] = lambda: None
    says: str = ""
    answer: Answer | None = None

    @property
    def key(self) -> str:
        return f"{self.surface}: {self.name}"


def respond(status: str, body: bytes = b"", **headers: str | int) -> bytes:
    """A raw HTTP answer; Content-Length is true unless given."""
    fields: Mapping[str, str | int] = {"Content-Length": len(body), **headers}
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return (
        "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape") + body
    )


def respond_json(value: object, **headers: str | int) -> bytes:
    return respond("200 OK", json.dumps(value).encode(), **headers)
