"""A real HTTP server whose answers a test writes, and repos for the embedded hub."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.retries import RetryPolicy
from ws_pipeline.hub.server import serve_app_in_thread

SHA = "a" * 40
TOKEN = "hf_secretTokenOfTheTest"


@dataclass
class ScriptedHub:
    """Answers by a function of the test's; remembers what was asked."""

    answer: Callable[[Request], Response] = lambda _: JSONResponse([])
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""

    def reset(self) -> None:
        self.answer = lambda _: JSONResponse([])
        self.requests = []

    @contextlib.contextmanager
    def serve(self) -> Iterator["ScriptedHub"]:
        def handle(request: Request) -> Response:
            self.requests.append(request)
            return self.answer(request)

        app = Starlette(routes=[Route("/{path:path}", handle)])
        with serve_app_in_thread(app) as self.endpoint:
            yield self

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]


@dataclass
class Sleeps:
    """Takes the pauses of retries without waiting."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def connect(endpoint: str, *, token: str | None = None, sleeps: Sleeps | None = None) -> HubClient:
    """A client that does not wait between its tries."""
    retries = RetryPolicy(max_attempts=3, sleep=Sleeps() if sleeps is None else sleeps)
    return HubClient(endpoint, token, retries=retries)


def listing_row(**changes: Any) -> dict[str, Any]:
    row = {
        "_id": "507f1f77bcf86cd799439011",
        "id": "owner/name",
        "sha": SHA,
        "createdAt": "2024-01-02T03:04:05.000Z",
        "lastModified": "2024-02-02T03:04:05.000Z",
        "gated": False,
        "private": False,
        "disabled": False,
        "tags": ["bert"],
        "library_name": "transformers",
        "config": {"model_type": "bert"},
    }
    return row | changes


def make_weights(seed: int = 0, *, dtype: str = "f4", rows: int = 20) -> bytes:
    random = np.random.default_rng(seed)
    return save(
        {
            "layer.weight": random.normal(size=(rows, 10)).astype(dtype),
            "layer.bias": random.normal(size=rows).astype(dtype),
        }
    )


def write_repo(
    hub: Path,
    repo_id: str,
    *,
    weights: bytes | None = None,
    config: dict[str, Any] | None = None,
    card: str = "license: mit",
    files: dict[str, bytes] | None = None,
    created: int = 0,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Put a repo of model type ``mlp`` on an embedded hub; ``created`` orders repos by age."""
    folder = hub / repo_id
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "mlp", "architectures": ["Mlp"]} if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(f"---\n{card}\n---\nA model.\n")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    for name, data in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    stated = {
        "_id": hashlib.sha256(repo_id.encode()).hexdigest()[:24],
        "createdAt": f"2024-01-01T00:00:{created:02d}.000Z",
    }
    (folder / ".hub.json").write_text(json.dumps(stated | (settings or {})))
    for path in folder.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))  # long ago, so the server trusts its reading
    return folder
