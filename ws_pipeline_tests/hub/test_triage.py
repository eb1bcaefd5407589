import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.numpy import load
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount

from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.repo import KEY_SCHEMA
from ws_pipeline.hub.server import make_app, serve_app_in_thread
from ws_pipeline.hub.triage import HEADER_PAYLOAD, compute_signature, triage_family
from ws_pipeline.storage.store import Store
from ws_pipeline.weights.header import parse_header_record
from ws_pipeline_tests.hub.scripted_hub import (
    SHA,
    TOKEN,
    ScriptedHub,
    connect,
    listing_row,
    make_weights,
    write_repo,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def crawl(endpoint: str, store: Store, family: str = "mlp") -> pl.DataFrame:
    return crawl_family(connect(endpoint), Ledger(store=store), family, now=NOW).frame


def triage(endpoint: str, store: Store, repos: pl.DataFrame, **options: Any) -> pl.DataFrame:
    return triage_family(connect(endpoint, **options), store, repos, parse=parse_header_record)


def triage_hub(endpoint: str, store: Store) -> dict[str, dict[str, Any]]:
    frame = triage(endpoint, store, crawl(endpoint, store))
    return {row["repo_id"]: row for row in frame.to_dicts()}


def test_a_header_is_read_without_the_model(hub_folder: Path, endpoint: str, store: Store) -> None:
    weights = make_weights()
    write_repo(hub_folder, "zoo/a", weights=weights)
    frame = triage(endpoint, store, crawl(endpoint, store))
    assert frame.schema == {**KEY_SCHEMA, **HEADER_PAYLOAD}
    row = frame.to_dicts()[0]
    assert row["accepted"]
    assert not row["reused"]
    assert {t["name"]: t["shape"] for t in row["tensors"]} == {
        name: list(array.shape) for name, array in load(weights).items()
    }
    assert (row["num_tensors"], row["num_params"], row["num_bytes"]) == (2, 220, 880)
    assert row["dtypes"] == ["F32"]
    assert row["files"][0]["num_bytes"] == len(weights)
    assert row["files"][0]["header_bytes"] == len(weights) - 880
    assert store.blobs.folder.keys("blobs") == []


def test_a_stored_verdict_is_not_computed_again(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    write_repo(hub_folder, "zoo/pickled", files={"pytorch_model.bin": b"x"})
    repos = crawl(endpoint, store)
    first = triage(endpoint, store, repos)
    again = triage("http://127.0.0.1:9", store, repos)  # nobody listens there
    assert again["reused"].all()
    assert again.drop("reused").equals(first.drop("reused"))


def test_each_broken_repo_has_its_own_reason_and_the_rest_goes_through(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    good = make_weights()
    write_repo(hub_folder, "zoo/good", weights=good)
    write_repo(hub_folder, "zoo/nothing")
    write_repo(hub_folder, "zoo/pickled", files={"pytorch_model.bin": b"\x80\x04."})
    write_repo(hub_folder, "zoo/short", weights=b"abc")
    write_repo(hub_folder, "zoo/cut", weights=good[:-1])
    write_repo(hub_folder, "zoo/huge", weights=b"\xff" * 8 + good)
    write_repo(hub_folder, "zoo/text", weights=(5).to_bytes(8, "little") + b"hello")
    write_repo(hub_folder, "zoo/gated", weights=good, settings={"gated": "auto"})
    write_repo(hub_folder, "zoo/adapter", files={"adapter_model.safetensors": good})
    rows = triage_hub(endpoint, store)
    assert {name: row["reason"] for name, row in rows.items()} == {
        "zoo/good": "",
        "zoo/nothing": "no_weights",
        "zoo/pickled": "pickle_only",
        "zoo/short": "header_truncated",
        "zoo/cut": "header_bad_offsets",
        "zoo/huge": "header_too_large",
        "zoo/text": "header_not_json",
        "zoo/gated": "gated",
        "zoo/adapter": "adapter",
    }
    assert all(row["detail"] for row in rows.values() if not row["accepted"])


def test_a_gated_repo_is_asked_again_and_a_token_opens_it(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    write_repo(hub_folder, "zoo/gated", weights=make_weights(), settings={"gated": "manual"})
    repos = crawl(endpoint, store)
    assert triage(endpoint, store, repos)["reason"].item() == "gated"
    assert triage(endpoint, store, repos, token=TOKEN)["accepted"].item()


def test_a_hub_that_does_not_answer_is_a_row_that_is_tried_again(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    repos = crawl(endpoint, store)
    frame = triage("http://127.0.0.1:9", store, repos)
    assert (frame["accepted"].item(), frame["reason"].item()) == (False, "unreachable")
    assert triage(endpoint, store, repos)["accepted"].item()


def split_model(cut: str = "") -> tuple[dict[str, bytes], dict[str, str]]:
    """Two shards with one tensor each (or twice the same name) and their weight map."""
    from safetensors.numpy import save

    arrays = load(make_weights())
    names = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    shards = {
        names[0]: save({"layer.weight": arrays["layer.weight"]}),
        names[1]: save({cut or "layer.bias": arrays["layer.bias"]}),
    }
    return shards, {"layer.weight": names[0], "layer.bias": names[1]}


def index_file(weight_map: dict[str, str]) -> dict[str, bytes]:
    return {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}


def test_a_sharded_model_has_the_signature_of_the_single_file(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    shards, weight_map = split_model()
    write_repo(hub_folder, "zoo/single", weights=make_weights())
    write_repo(hub_folder, "zoo/sharded", files=shards | index_file(weight_map))
    rows = triage_hub(endpoint, store)
    assert rows["zoo/sharded"]["signature"] == rows["zoo/single"]["signature"]
    assert len(rows["zoo/sharded"]["files"]) == 2


@pytest.mark.parametrize(
    ("cut", "weight_map_change", "reason"),
    [
        ("layer.weight", {}, "header_duplicate_name"),
        ("layer.other", {}, "invalid_index"),
        ("", {"layer.bias": "m-00001-of-00002.safetensors"}, "invalid_index"),
        ("", {"layer.bias": "../../../api/whoami-v2"}, "unsafe_file_name"),
        ("", {"layer.bias": "../../other/x/resolve/main/model.safetensors"}, "unsafe_file_name"),
    ],
)
def test_an_index_that_does_not_keep_its_word_is_refused(
    hub_folder: Path,
    endpoint: str,
    store: Store,
    cut: str,
    weight_map_change: dict[str, str],
    reason: str,
) -> None:
    shards, weight_map = split_model(cut)
    write_repo(hub_folder, "zoo/a", files=shards | index_file(weight_map | weight_map_change))
    assert triage_hub(endpoint, store)["zoo/a"]["reason"] == reason


@pytest.mark.parametrize(
    ("cap", "reason"),
    [
        ("MAX_MODEL_TENSORS", "header_too_many_tensors"),
        ("MAX_MODEL_HEADER_BYTES", "header_too_large"),
    ],
)
def test_shards_must_not_add_up_to_more_than_one_model_may_have(
    hub_folder: Path,
    endpoint: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    cap: str,
    reason: str,
) -> None:
    monkeypatch.setattr(f"ws_pipeline.hub.triage.{cap}", 1)
    shards, weight_map = split_model()
    write_repo(hub_folder, "zoo/a", files=shards | index_file(weight_map))
    assert triage_hub(endpoint, store)["zoo/a"]["reason"] == reason


def header_of(num_tensors: int) -> bytes:
    tensors = {
        f"layers.{n}.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
        for n in range(num_tensors)
    }
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4 * num_tensors)


@pytest.mark.parametrize(("num_tensors", "num_requests"), [(10, 1), (3000, 2)])
def test_a_short_header_takes_one_request_and_a_long_one_two(
    scripted: ScriptedHub, store: Store, num_tensors: int, num_requests: int
) -> None:
    data = header_of(num_tensors)
    siblings = [{"rfilename": "model.safetensors", "size": len(data)}]

    def answer(request: Request) -> Response:
        if "/resolve/" not in request.url.path:
            listing = request.url.path == "/api/models"
            row = {"sha": SHA, "siblings": siblings}
            return JSONResponse([listing_row()] if listing else row)
        start, end = (int(n) for n in request.headers["range"].removeprefix("bytes=").split("-"))
        headers = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return Response(data[start : end + 1], 206, headers=headers)

    scripted.answer = answer
    frame = triage(scripted.endpoint, store, crawl(scripted.endpoint, store, "bert"))
    assert frame["num_tensors"].item() == num_tensors
    assert sum("/resolve/" in path for path in scripted.paths) == num_requests


class DamagedOnce:
    """ASGI: flips bits in the middle of the first ranges that are sent, whose length stays."""

    def __init__(self, app: Any, *, times: int, at: int) -> None:
        self.app, self.left, self.at = app, times, at

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_range = any(name == b"range" for name, _ in scope["headers"])
        self.left -= is_range
        is_damaged = is_range and self.left >= 0

        async def send_damaged(message: Any) -> None:
            body = message.get("body")
            if is_damaged and body:
                message = message | {"body": body[: self.at] + b"\xff" + body[self.at + 1 :]}
            await send(message)

        await self.app(scope, receive, send_damaged)


@pytest.mark.parametrize(
    ("num_rows", "times", "reason"),
    [
        (20, 1, ""),  # a short file: its digest tells, and it is asked for again at once
        (20, 3, "sha256_mismatch"),
        (5000, 1, "unreachable"),  # a long one: the second reading differs
        (5000, 0, ""),
    ],
)
def test_a_header_that_was_damaged_on_its_way_is_no_verdict(
    hub_folder: Path, store: Store, num_rows: int, times: int, reason: str
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights(rows=num_rows))
    app = DamagedOnce(make_app(hub_folder), times=times, at=20)
    with serve_app_in_thread(Starlette(routes=[Mount("/", app=app)])) as endpoint:
        assert triage_hub(endpoint, store)["zoo/a"]["reason"] == reason
        assert (store.manifests.keys("headers") == []) == bool(reason)
        assert triage_hub(endpoint, store)["zoo/a"]["accepted"]


def test_the_signature_does_not_depend_on_order_or_values() -> None:
    tensors = [{"name": "a", "shape": [2, 3]}, {"name": "b", "shape": []}]
    assert compute_signature(tensors) == compute_signature(tensors[::-1])
    assert len(compute_signature(tensors)) == 16
    assert compute_signature(tensors) != compute_signature(tensors[:1])
