"""A token and signed URLs go in at the hub; nothing that stays or is shown afterwards has them.

One family over the whole path: crawl, files behind signed redirects, tokens, and (slow) training,
MLflow and the report. What is searched is every file of the home (Parquet decoded), what was
printed, and every log record.
"""

import functools
import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from ws_pipeline.defs import operations, resources
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.retries import RetryPolicy
from ws_pipeline.hub.server import make_app, serve_app_in_thread
from ws_pipeline.recipes import catalog
from ws_pipeline.storage.store import Store
from ws_pipeline_tests.defs.small_hub import write_hub, write_repo
from ws_pipeline_tests.integration.test_demo import quick

TOKEN = "hf_canaryThatMustNotBeSeen"
SIGNATURE = "5e0ff1gnedCanary"
SECRETS = (TOKEN, SIGNATURE)
BROKEN = {"lab/mlp-90": 403, "lab/mlp-91": 500, "lab/mlp-92": 200}
"""Repos whose signed URLs answer so; 200 is a body that is not the file's."""
STRAY = "lab/mlp-93"
"""A repo whose files lie on another origin, without https."""


class SignedHub:
    """ASGI: a hub that wants the token, and hands out large files by a signed URL, as others do."""

    def __init__(self, folder: Path, elsewhere: str) -> None:
        self.app, self.elsewhere = make_app(folder), elsewhere
        self.num_signed = 0
        self.without_token: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = scope["query_string"].decode()
        path, headers = scope["path"], dict(scope["headers"])
        if headers.get(b"authorization") != f"Bearer {TOKEN}".encode():
            self.without_token.append(path)
        repo_id = "/".join(path.split("/")[1:3])
        is_signed = parse_qs(query).get("X-Amz-Signature") == [SIGNATURE]
        if not path.endswith(".safetensors"):
            await self.app(scope, receive, send)
        elif not is_signed:
            origin = self.elsewhere if repo_id == STRAY else ""
            url = f"{origin}{path}?X-Amz-Expires=60&X-Amz-Signature={SIGNATURE}"
            await Response(status_code=302, headers={"Location": url})(scope, receive, send)
        else:
            self.num_signed += 1
            if repo_id in BROKEN:
                answer = PlainTextResponse(f"no: {path}?{query}", BROKEN[repo_id])
                await answer(scope, receive, send)
            else:
                await self.app(scope | {"query_string": b""}, receive, send)


def find_secrets(folder: Path) -> Iterator[str]:
    """Yield where below a folder a secret stands, in a name or in bytes."""
    for path in sorted(folder.rglob("*")):
        if any(secret in str(path) for secret in SECRETS):
            yield str(path)
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += pl.read_parquet(path).write_ndjson().encode()
            if data.startswith(b"\x1f\x8b"):
                data += zlib.decompress(data, wbits=31)
            yield from (f"{path}: {s}" for s in SECRETS if s.encode() in data)


@pytest.mark.parametrize("train", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_token_and_no_signed_url_is_ever_shown_or_stored(
    train: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub, home = tmp_path / "served", tmp_path / "home"
    write_hub(hub, families=("mlp",), num_repos=12)
    for repo_id in (*BROKEN, STRAY):
        write_repo(hub, "mlp", int(repo_id.rpartition("-")[2]))
    stray: list[str] = []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    impatient = RetryPolicy(max_attempts=2, sleep=lambda _: None)
    monkeypatch.setattr(resources, "HubClient", functools.partial(HubClient, retries=impatient))
    monkeypatch.setattr(catalog, "RECIPES", {**catalog.RECIPES, "tiny": quick})
    caplog.set_level(logging.DEBUG)

    async def note(request: Request) -> Response:
        stray.append(str(request.url))
        return Response(b"")

    with serve_app_in_thread(Starlette(routes=[Route("/{path:path}", note)])) as elsewhere:
        app = SignedHub(hub, elsewhere)
        with serve_app_in_thread(Starlette(routes=[Mount("/", app=app)])) as endpoint:
            result = operations.refresh(home, endpoint=endpoint, train=train)

    assert [o for o in result.outcomes if o.state == "failed"] == []
    rows = Ledger(store=Store.open(home / "store")).read("mlp")
    reasons = dict(rows.filter(pl.col("reason") != "").select("repo_id", "reason").rows())
    assert reasons == {
        "lab/mlp-90": "private",
        "lab/mlp-91": "unreachable",
        "lab/mlp-92": "unreachable",
        STRAY: "unreachable",
    }
    assert app.num_signed > 20
    assert set(app.without_token) <= {"/api/models"}  # families are discovered as anyone would
    assert stray == []
    assert (home / "mlflow" / "mlflow.db").is_file() == train
    assert (home / "report" / "report.html").is_file() == train
    printed = capfd.readouterr()
    shown = [printed.out, printed.err, repr(result), repr(rows.to_dicts())]
    shown += [repr(vars(record)) for record in caplog.records]
    assert not [text for text in shown for secret in SECRETS if secret in text]
    assert list(find_secrets(tmp_path)) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"deep": [TOKEN]}))
    pl.DataFrame({"detail": [f"GET /x?X-Amz-Signature={SIGNATURE}"] * 99}).write_parquet(
        tmp_path / "b.parquet", compression="zstd"
    )
    (tmp_path / SIGNATURE).mkdir()
    assert len(list(find_secrets(tmp_path))) == 3
