import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ws_pipeline.errors import NoSpaceError
from ws_pipeline.hub.crawl import crawl_family
from ws_pipeline.hub.download import FILES_PAYLOAD, download_family
from ws_pipeline.hub.ledger import Ledger
from ws_pipeline.hub.repo import KEY_SCHEMA
from ws_pipeline.hub.selection import SelectionPolicy, select_family
from ws_pipeline.hub.triage import triage_family
from ws_pipeline.storage import local
from ws_pipeline.storage.store import Store
from ws_pipeline.weights.header import parse_header_record
from ws_pipeline_tests.hub.scripted_hub import (
    SHA,
    ScriptedHub,
    connect,
    listing_row,
    make_weights,
    write_repo,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]


def prepare(endpoint: str, store: Store, family: str = "mlp") -> Tables:
    client = connect(endpoint)
    repos = crawl_family(client, Ledger(store=store), family, now=NOW).frame
    headers = triage_family(client, store, repos, parse=parse_header_record)
    return repos, select_family(repos, headers, SelectionPolicy()), headers


def download(endpoint: str, store: Store, tables: Tables) -> pl.DataFrame:
    return download_family(connect(endpoint), store, *tables)


def test_weights_and_config_are_stored_with_a_manifest(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    weights = make_weights()
    folder = write_repo(hub_folder, "zoo/a", weights=weights, files={"notes.txt": b"x"})
    frame = download(endpoint, store, prepare(endpoint, store))
    assert frame.schema == {**KEY_SCHEMA, **FILES_PAYLOAD}
    row = frame.to_dicts()[0]
    config = (folder / "config.json").read_bytes()
    assert (row["accepted"], row["num_files"]) == (True, 2)
    assert row["num_bytes"] == len(weights) + len(config)
    manifest = store.manifests.read(row["manifest"])
    assert {name: manifest[name] for name in ("repo_id", "hub_id", "revision")} == {
        name: row[name] for name in ("repo_id", "hub_id", "revision")
    }
    stored = {file["path"]: store.blobs.read(file["sha256"]) for file in manifest["files"]}
    assert stored == {"model.safetensors": weights, "config.json": config}


def test_a_stored_repo_is_not_asked_for_again(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    tables = prepare(endpoint, store)
    first = download(endpoint, store, tables)
    again = download("http://127.0.0.1:9", store, tables)
    assert again["reused"].all()
    assert again.drop("reused").equals(first.drop("reused"))


def test_a_blob_that_was_evicted_is_fetched_again(
    hub_folder: Path, endpoint: str, store: Store
) -> None:
    weights = make_weights()
    write_repo(hub_folder, "zoo/a", weights=weights)
    tables = prepare(endpoint, store)
    download(endpoint, store, tables)
    sha256 = hashlib.sha256(weights).hexdigest()
    store.blobs.remove(sha256)
    frame = download(endpoint, store, tables)
    assert (frame["accepted"].item(), frame["reused"].item()) == (True, False)
    assert store.blobs.read(sha256) == weights


def serve_repo(scripted: ScriptedHub, data: bytes, *, served: bytes | None = None) -> None:
    """One repo of family bert whose weights are stated as ``data``; whole reads get ``served``."""
    digest = hashlib.sha256(data).hexdigest()
    large = {"sha256": digest, "size": len(data)}
    siblings = [{"rfilename": "model.safetensors", "size": len(data), "lfs": large}]

    def answer(request: Request) -> Response:
        if "/resolve/" not in request.url.path:
            listing = request.url.path == "/api/models"
            row: dict[str, Any] = {"sha": SHA, "siblings": siblings}
            return JSONResponse([listing_row()] if listing else row)
        if "range" not in request.headers:
            return Response(data if served is None else served)
        headers = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}
        return Response(data, 206, headers=headers)

    scripted.answer = answer


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data + b"!"]
)
def test_damaged_bytes_are_never_stored_and_tried_again(
    scripted: ScriptedHub, store: Store, damage: Callable[[bytes], bytes]
) -> None:
    data = make_weights()
    serve_repo(scripted, data, served=damage(data))
    tables = prepare(scripted.endpoint, store, "bert")
    frame = download(scripted.endpoint, store, tables)
    assert (frame["accepted"].item(), frame["reason"].item()) == (False, "sha256_mismatch")
    assert store.blobs.folder.keys("blobs") == []
    serve_repo(scripted, data)
    assert download(scripted.endpoint, store, tables)["accepted"].item()


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_part_of_a_killed_process_is_gone_on_with_and_a_damaged_one_fetched_anew(
    scripted: ScriptedHub, store: Store, is_damaged: bool
) -> None:
    data = make_weights()
    serve_repo(scripted, data)
    tables = prepare(scripted.endpoint, store, "bert")
    sha256 = hashlib.sha256(data).hexdigest()
    with store.blobs.parts.lock(sha256) as part:
        part.write_bytes(b"?" * 500 if is_damaged else data[:500])
    scripted.requests.clear()
    whole = scripted.answer

    def answer(request: Request) -> Response:
        if request.headers.get("range") != "bytes=500-":
            return whole(request)
        headers = {"Content-Range": f"bytes 500-{len(data) - 1}/{len(data)}"}
        return Response(data[500:], 206, headers=headers)

    scripted.answer = answer
    assert download(scripted.endpoint, store, tables)["accepted"].item()
    assert store.blobs.read(sha256) == data
    ranges = [request.headers.get("range") for request in scripted.requests]
    assert ranges == (["bytes=500-", None] if is_damaged else ["bytes=500-"])
    assert list(store.blobs.parts.folder.iterdir()) == []


def test_a_part_that_is_whole_is_not_asked_for(scripted: ScriptedHub, store: Store) -> None:
    data = make_weights()
    serve_repo(scripted, data)
    tables = prepare(scripted.endpoint, store, "bert")
    with store.blobs.parts.lock(hashlib.sha256(data).hexdigest()) as part:
        part.write_bytes(data)
    frame = download("http://127.0.0.1:9", store, tables)  # nobody listens there
    assert frame["accepted"].item()


def test_what_a_killed_process_left_of_a_stored_file_goes(
    scripted: ScriptedHub, store: Store
) -> None:
    data = make_weights()
    serve_repo(scripted, data)
    tables = prepare(scripted.endpoint, store, "bert")
    sha256 = store.blobs.put_bytes(data).sha256
    with store.blobs.parts.lock(sha256) as part:
        part.write_bytes(data)
    assert download("http://127.0.0.1:9", store, tables)["accepted"].item()
    assert not part.exists()


def test_a_file_said_to_be_larger_than_the_disk_is_its_own_row(
    scripted: ScriptedHub, store: Store
) -> None:
    serve_repo(scripted, make_weights())
    repos, selection, headers = prepare(scripted.endpoint, store, "bert")
    huge = pl.element().struct.with_fields(num_bytes=pl.lit(2**40, dtype=pl.Int64))
    repos = repos.with_columns(pl.col("files").list.eval(huge))
    frame = download(scripted.endpoint, store, (repos, selection, headers))
    assert frame["reason"].item() == "file_too_large"


def test_a_hub_that_goes_away_is_a_row_that_is_tried_again(
    scripted: ScriptedHub, store: Store
) -> None:
    serve_repo(scripted, make_weights())
    tables = prepare(scripted.endpoint, store, "bert")
    frame = download("http://127.0.0.1:9", store, tables)
    assert frame["reason"].item() == "download_failed"
    assert download(scripted.endpoint, store, tables)["accepted"].item()


def test_a_config_beyond_the_cap_is_refused(
    hub_folder: Path, endpoint: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ws_pipeline.hub.download.MAX_CONFIG_FILE_BYTES", 10)
    write_repo(hub_folder, "zoo/a", weights=make_weights())
    frame = download(endpoint, store, prepare(endpoint, store))
    assert frame["reason"].item() == "file_too_large"


def test_a_full_disk_ends_the_family_with_one_clear_error(
    hub_folder: Path, endpoint: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        write_repo(hub_folder, f"zoo/m{number}", weights=make_weights(number))
    tables = prepare(endpoint, store)
    monkeypatch.setattr(local, "RESERVE_BYTES", 2**60)
    with pytest.raises(NoSpaceError, match=r"Free some space or point --home at a larger disk"):
        download(endpoint, store, tables)
