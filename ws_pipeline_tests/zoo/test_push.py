"""A zoo pushed over the Hub's API loads back, goes on after a stop, and waits for a busy hub.

The receiving side is a hub of a few lines that takes commits as ``huggingface_hub`` sends them into
a folder, which the embedded hub serves.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest
from huggingface_hub import HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ws_pipeline.errors import HubError, MissingInputError, RefusedError
from ws_pipeline.hub.server import make_app
from ws_pipeline.hub.server.endpoint import serve_app_in_thread
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.push import PushResult, push_zoo

TOKEN = "hf_of_a_test"


@dataclass
class Receiver:
    """Takes commits into a folder; answers those of ``answers`` first."""

    folder: Path
    url: str = ""
    commits: list[str] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)

    async def create(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "no"}, status_code=401)
        sent = await request.json()
        repo = f"{sent['organization']}/{sent['name']}"
        return JSONResponse({"url": f"{self.url}/{repo}", "name": repo})

    async def validate(self, _request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    async def preupload(self, request: Request) -> Response:
        files = (await request.json())["files"]
        modes = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for file in files
        ]
        return JSONResponse({"files": modes})

    async def commit(self, request: Request) -> Response:
        if self.answers:
            return self.answers.pop(0)
        kind = "" if request.path_params["kind"] == "models" else "datasets/"
        name = f"{kind}{request.path_params['owner']}/{request.path_params['name']}"
        for line in (await request.body()).decode().splitlines():
            sent = json.loads(line)
            if sent["key"] == "file":
                path = self.folder / name / sent["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(sent["value"]["content"]))
        self.commits.append(name)
        answer = {"commitUrl": f"{self.url}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40}
        return JSONResponse({**answer, "success": True})


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    folder = tmp_path / "received"
    folder.mkdir()
    receiver = Receiver(folder)
    repo = "/api/{kind}/{owner}/{name}"
    app = Starlette(
        routes=[
            Route("/api/repos/create", receiver.create, methods=["POST"]),
            Route("/api/validate-yaml", receiver.validate, methods=["POST"]),
            Route(f"{repo}/preupload/main", receiver.preupload, methods=["POST"]),
            Route(f"{repo}/commit/main", receiver.commit, methods=["POST"]),
            Mount("/", make_app(folder)),
        ]
    )
    with serve_app_in_thread(app) as receiver.url:
        yield receiver


def push(
    folder: Path, receiver: Receiver, token: str | None = TOKEN, waits: list[float] | None = None
) -> PushResult:
    sleep = (lambda _: None) if waits is None else waits.append
    return push_zoo(
        folder, endpoint=receiver.url, owner="lab", zoo="tiny", token=token, sleep=sleep
    )


@pytest.fixture
def folder(reported_folder: Path) -> Iterator[Path]:
    yield reported_folder
    (reported_folder / "pushed.jsonl").unlink(missing_ok=True)


def test_what_was_pushed_loads_back_over_the_api(
    folder: Path, receiver: Receiver, tmp_path: Path
) -> None:
    names = read_index(folder)["name"].to_list()
    assert push(folder, receiver) == PushResult(num_pushed=len(names) + 1, num_there=0)
    assert receiver.commits[-1] == "datasets/lab/tiny", "the data set says that all is there"
    api = HfApi(endpoint=receiver.url)
    assert {model.id for model in api.list_models()} == {f"lab/{name}" for name in names}
    cache = {"endpoint": receiver.url, "cache_dir": tmp_path / "cache"}
    for name in names[:2]:
        got = Path(snapshot_download(f"lab/{name}", **cache))
        for file in ("config.json", "model.safetensors"):
            assert (got / file).read_bytes() == (folder / "repos" / name / file).read_bytes()
        assert ModelCard.load(got / "README.md").data.model_name == name
    assert "diversity.parquet" in {
        file.rfilename for file in api.dataset_info("lab/tiny").siblings or ()
    }
    index = hf_hub_download("lab/tiny", "index.parquet", repo_type="dataset", **cache)
    assert pl.read_parquet(index)["owner"].unique().to_list() == ["lab"]
    assert pl.read_parquet(index)["name"].to_list() == names
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("lab/other")


def test_a_stopped_push_goes_on_and_a_finished_one_sends_nothing(
    folder: Path, receiver: Receiver
) -> None:
    num_models = len(read_index(folder))
    receiver.answers = [Response(status_code=400)]
    with pytest.raises(HubError, match=r"answers 400.*goes on with this repo"):
        push(folder, receiver)
    assert receiver.commits == []
    push(folder, receiver)
    journal = folder / "pushed.jsonl"
    lines = journal.read_text().split("\n")[1:]
    journal.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])  # killed at the fourth note
    receiver.commits.clear()
    again = push(folder, receiver)
    assert again == PushResult(num_pushed=num_models - 2, num_there=3)
    assert push(folder, receiver) == PushResult(num_pushed=0, num_there=num_models + 1)


def test_a_changed_repo_is_pushed_again_and_no_other(folder: Path, receiver: Receiver) -> None:
    push(folder, receiver)
    card = folder / "repos" / read_index(folder)["name"][0] / "README.md"
    before = card.read_bytes()
    card.write_bytes(before + b"\nA remark.\n")
    receiver.commits.clear()
    try:
        assert push(folder, receiver).num_pushed == 1
    finally:
        card.write_bytes(before)
    assert receiver.commits == [f"lab/{card.parent.name}"]


def test_a_busy_hub_is_waited_for_as_long_as_it_says(folder: Path, receiver: Receiver) -> None:
    receiver.answers = [
        Response(status_code=429, headers={"Retry-After": "7"}),
        Response(status_code=429),
    ]
    waits: list[float] = []
    push(folder, receiver, waits=waits)
    assert waits == [7, 4]


def test_without_the_right_token_it_is_refused(folder: Path, receiver: Receiver) -> None:
    with pytest.raises(RefusedError, match="needs a token: set HF_TOKEN"):
        push(folder, receiver, token=None)
    with pytest.raises(RefusedError, match=r"status 401.*account that may write"):
        push(folder, receiver, token="hf_of_another")
    assert receiver.commits == []


def test_a_zoo_without_its_report_is_refused(tiny_folder: Path, receiver: Receiver) -> None:
    with pytest.raises(MissingInputError, match="must hold a report"):
        push(tiny_folder, receiver)
