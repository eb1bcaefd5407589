"""The embedded hub's routes and lifetime, by a raw client."""

import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

from ws_pipeline.errors import MissingInputError, Reason, RefusedError
from ws_pipeline.hub.server import make_app, serve, serve_app_in_thread, serve_in_thread
from ws_pipeline_tests.hub.server_fixtures import write_repo


class Client:
    """Sends exactly the path it is given, without normalising it."""

    def __init__(self, endpoint: str) -> None:
        self.netloc = urlsplit(endpoint).netloc

    def get(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: str = "",
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.netloc, timeout=10)
        try:
            connection.request(method, path, body=body or None, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> object:
        status, _, data = self.get(path)
        assert status == 200, data
        return json.loads(data)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    write_repo(folder, "lab/one")
    return folder


@pytest.fixture
def client(hub: Path) -> Iterator[Client]:
    with serve_in_thread(hub) as endpoint:
        yield Client(endpoint)


WEIGHTS = "/lab/one/resolve/main/model.safetensors"


def test_head_says_what_get_would_send(client: Client, hub: Path) -> None:
    status, head, body = client.get(WEIGHTS, method="HEAD")
    size = (hub / "lab/one/model.safetensors").stat().st_size
    assert (status, body) == (200, b"")
    assert head["content-length"] == head["x-linked-size"] == str(size)
    assert head["etag"] == head["x-linked-etag"]
    assert head["accept-ranges"] == "bytes"
    assert len(head["x-repo-commit"]) == 40
    assert "x-xet-hash" not in head
    assert client.get(WEIGHTS)[1]["etag"] == head["etag"]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-7", 0, 8), ("bytes=8-19", 8, 20), ("bytes=-5", -5, None), ("bytes=100-", 100, None)],
)
def test_a_range_is_those_bytes(
    client: Client, hub: Path, asked: str, start: int, stop: int | None
) -> None:
    data = (hub / "lab/one/model.safetensors").read_bytes()
    status, head, body = client.get(WEIGHTS, {"Range": asked})
    assert status == 206
    assert body == data[start:stop]
    assert head["content-length"] == str(len(body))
    assert head["content-range"].endswith(f"/{len(data)}")


def test_a_range_beyond_the_file_is_416(client: Client, hub: Path) -> None:
    size = (hub / "lab/one/model.safetensors").stat().st_size
    status, head, _ = client.get(WEIGHTS, {"Range": f"bytes={size}-"})
    assert (status, head["content-range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize(
    "path",
    [
        "/lab/one/resolve/main/../../../outside.txt",
        "/lab/one/resolve/main/..%2f..%2f..%2foutside.txt",
        "/lab/one/resolve/main/%2e%2e/%2e%2e/%2e%2e/outside.txt",
        "/lab/one/resolve/main//etc/passwd",
        "/lab/one/resolve/main/link.txt",
        "/lab/one/resolve/main/inner-link.txt",
        "/lab/one/resolve/main/linked-folder/outside.txt",
        "/lab/one/resolve/main/.hub.json",
        "/lab/one/resolve/main/.git/config",
        "/lab/one/resolve/main/hidden-link.txt",
        "/lab/..%2f..%2fx/resolve/main/outside.txt",
        "/../hub/resolve/main/one",
        "/lab/linked/resolve/main/outside.txt",
        "/lab/one/resolve/main/config.json%00",
        "/lab/one/resolve/main/%0d%0aX-Evil:%201",
        "/lab/one/resolve/%ff%e2%82%ac/config.json",
    ],
)
def test_nothing_outside_the_repo_and_nothing_hidden_is_served(
    client: Client, hub: Path, path: str
) -> None:
    folder = hub / "lab/one"
    (hub.parent / "outside.txt").write_text("secret")
    (hub.parent / "config.json").write_text("secret")
    (folder / ".hub.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("secret")
    (folder / "link.txt").symlink_to(hub.parent / "outside.txt")
    (folder / "hidden-link.txt").symlink_to(folder / ".git/config")
    (folder / "linked-folder").symlink_to(hub.parent, target_is_directory=True)
    write_repo(hub, "lab/two")
    (folder / "inner-link.txt").symlink_to(hub / "lab/two/README.md")
    (hub / "lab/linked").symlink_to(hub.parent, target_is_directory=True)
    status, head, body = client.get(path)
    assert status == 404
    assert b"secret" not in body
    assert "x-evil" not in head


def test_a_link_to_a_file_of_the_same_repo_is_served(client: Client, hub: Path) -> None:
    (hub / "lab/one/copy.txt").symlink_to("extra/notes.txt")
    assert client.get("/lab/one/resolve/main/copy.txt")[2] == b"notes\n"


def test_a_new_repo_is_listed_and_a_deleted_one_is_not(client: Client, hub: Path) -> None:
    write_repo(hub, "lab/two")
    assert {row["id"] for row in client.json("/api/models")} == {"lab/one", "lab/two"}
    shutil.rmtree(hub / "lab/one")
    assert [row["id"] for row in client.json("/api/models")] == ["lab/two"]
    assert client.get("/api/models/lab/one")[0] == 404


def test_changed_content_is_a_new_revision_and_the_old_one_is_gone(
    client: Client, hub: Path
) -> None:
    before = client.json("/api/models/lab/one?blobs=true")
    save_file({"a.weight": np.ones((6, 4), np.float32)}, hub / "lab/one/model.safetensors")
    after = client.json("/api/models/lab/one?blobs=true")
    assert after["sha"] != before["sha"]
    assert after["lastModified"] > before["lastModified"]
    assert after["_id"] == before["_id"]
    assert after["safetensors"]["total"] == 24
    assert client.get(f"/api/models/lab/one/revision/{before['sha']}")[0] == 404


def test_a_file_rewritten_in_place_with_the_same_size_is_seen(client: Client, hub: Path) -> None:
    notes = hub / "lab/one/extra/notes.txt"
    before = client.json("/api/models/lab/one")
    status = notes.stat()
    notes.write_text("NOTES\n")
    os.utime(notes, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = client.json("/api/models/lab/one")
    assert after["sha"] != before["sha"]
    assert after["lastModified"] > before["lastModified"]
    assert client.json("/api/models/lab/one")["lastModified"] == after["lastModified"]


def test_a_deleted_file_moves_last_modified(client: Client, hub: Path) -> None:
    before = client.json("/api/models/lab/one")
    (hub / "lab/one/extra/notes.txt").unlink()
    after = client.json("/api/models/lab/one")
    assert after["lastModified"] > before["lastModified"]
    assert after["sha"] != before["sha"]


def test_equal_content_has_an_equal_revision_anywhere(client: Client, hub: Path) -> None:
    shutil.copytree(hub / "lab/one", hub / "other/copy")
    one, copy = client.json("/api/models/lab/one"), client.json("/api/models/other/copy")
    assert one["sha"] == copy["sha"]
    assert one["_id"] != copy["_id"]


def test_a_repo_moved_in_with_old_dates_counts_as_modified_now(client: Client, hub: Path) -> None:
    write_repo(hub.parent / "elsewhere", "lab/old")
    for path in (hub.parent / "elsewhere").rglob("*"):
        os.utime(path, (1e9, 1e9))
    newest = client.json("/api/models/lab/one")["lastModified"]
    shutil.move(hub.parent / "elsewhere/lab/old", hub / "lab/old")
    moved = client.json("/api/models/lab/old")
    assert moved["lastModified"] > newest
    assert moved["createdAt"].startswith("2001-09-09T")


def test_the_next_page_is_an_absolute_url_with_the_same_query(hub: Path) -> None:
    for i in range(3):
        write_repo(hub, f"lab/more-{i}")
    with serve_app_in_thread(make_app(hub, page_size=1)) as endpoint:
        client, seen = Client(endpoint), []
        path = "/api/models?" + urlencode(
            [("filter", "bert"), ("filter", "tiny"), ("sort", "createdAt"), ("direction", "1")]
        )
        while path:
            _, head, body = client.get(path)
            seen += [row["id"] for row in json.loads(body)]
            link = head.get("link", "")
            assert not link or link.startswith(f"<{endpoint}/api/models?filter=bert&filter=tiny&")
            path = link[len(endpoint) + 1 : link.index(">")] if link else ""
    assert sorted(seen) == ["lab/more-0", "lab/more-1", "lab/more-2", "lab/one"]


def test_a_repo_that_goes_between_pages_shifts_nothing(hub: Path) -> None:
    for i in range(4):
        write_repo(hub, f"lab/more-{i}", settings={"createdAt": f"2020-01-0{i + 1}"})
    with serve_app_in_thread(make_app(hub, page_size=2)) as endpoint:
        client = Client(endpoint)
        _, head, body = client.get("/api/models?sort=createdAt&direction=1")
        assert [row["id"] for row in json.loads(body)] == ["lab/more-0", "lab/more-1"]
        shutil.rmtree(hub / "lab/more-1")
        link = head["link"]
        rows = client.json(link[len(endpoint) + 1 : link.index(">")])
    assert [row["id"] for row in rows] == ["lab/more-2", "lab/more-3"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("num_parameters=min:1", "does not know the query parameter num_parameters"),
        ("sort=size", "sort has to be one of"),
        ("limit=0", "limit has to be at least 1, not 0"),
        ("limit=x", "limit has to be a number, not 'x'"),
        ("cursor=x", "cursor is not one that this hub gave out"),
        ("expand=shoe", "not shoe"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(
    client: Client, query: str, sentence: str
) -> None:
    status, head, body = client.get(f"/api/models?{query}")
    assert status == 400
    assert sentence in json.loads(body)["error"]
    assert head["x-error-message"]


@pytest.mark.parametrize("path", ["/api/agent-harnesses", "/api/whoami-v2", "/lab/one", "/x"])
def test_other_addresses_are_404(client: Client, path: str) -> None:
    assert client.get(path)[0] == 404


def test_a_form_without_end_is_refused(client: Client) -> None:
    status, _, _ = client.get(
        "/api/models/lab/one/paths-info/main", method="POST", body="paths=" + "a" * 5_000_000
    )
    assert status == 413


HOSTILE_CARDS = {
    "aliases": "a: &a [x]\nb: [*a, *a]",
    "depth": "a: " + "[" * 5000 + "]" * 5000,
    "not closed": "a: [",
    "tags of python": "a: !!python/object/apply:os.system ['true']",
    "a list": "- a\n- b",
    "a date and a nan": "license: mit\ndate: 2026-01-01\nvalue: .nan\n1: one",
}


@pytest.mark.parametrize("kind", HOSTILE_CARDS)
def test_a_hostile_card_harms_nobody(client: Client, hub: Path, kind: str) -> None:
    write_repo(hub, "lab/two")
    (hub / "lab/two/README.md").write_text(f"---\n{HOSTILE_CARDS[kind]}\n---\n# x\n")
    info = client.json("/api/models/lab/two")
    if kind == "a date and a nan":
        card = {"license": "mit", "date": "2026-01-01", "value": None, "1": "one"}
        assert info["cardData"] == card
    else:
        assert "cardData" not in info
    assert len(client.json("/api/models")) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little"),
        (9).to_bytes(8, "little") + b"[" * 9,
        (2).to_bytes(8, "little") + b"{}",
        (23).to_bytes(8, "little") + b'{"a":{"dtype":"F32"} } ',
    ],
)
def test_broken_weights_are_served_without_parameter_counts(
    client: Client, hub: Path, head: bytes
) -> None:
    (hub / "lab/one/model.safetensors").write_bytes(head)
    assert "safetensors" not in client.json("/api/models/lab/one")
    assert client.get(WEIGHTS)[2] == head


def test_a_broken_config_or_settings_file_counts_as_empty(client: Client, hub: Path) -> None:
    (hub / "lab/one/config.json").write_bytes(b"[" * 200_000)
    (hub / "lab/one/.hub.json").write_bytes(b"\xff{")
    info = client.json("/api/models/lab/one")
    assert "config" not in info
    assert info["gated"] is False


def test_empty_folders_hidden_ones_and_loose_files_are_no_repos(client: Client, hub: Path) -> None:
    (hub / "lab/empty").mkdir()
    (hub / "loose.txt").write_text("x")
    write_repo(hub, "lab/.staging")
    write_repo(hub, "lab/two words")
    assert [row["id"] for row in client.json("/api/models")] == ["lab/one"]


def test_a_port_in_use_is_refused_with_the_way_out(hub: Path) -> None:
    with serve_in_thread(hub) as endpoint:
        port = urlsplit(endpoint).port
        with pytest.raises(RefusedError, match=rf"Port {port} .* --port") as caught:
            serve(hub, port=port or 0)
    assert caught.value.reason is Reason.PORT_IN_USE
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99999), ("192.0.2.1", 0)])
def test_an_impossible_address_is_refused_too(hub: Path, host: str, port: int) -> None:
    with pytest.raises(RefusedError, match="cannot be listened on"):
        serve(hub, host=host, port=port)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"There is no folder .*nowhere"):
        make_app(tmp_path / "nowhere")


def test_the_thread_ends_with_the_block_and_the_port_is_free_again(hub: Path) -> None:
    with serve_in_thread(hub) as endpoint:
        port = urlsplit(endpoint).port
        assert Client(endpoint).get("/")[2].startswith(b"Weight Space Pipeline hub: 1 ")
    assert not any(thread.name == "embedded-hub" for thread in threading.enumerate())
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
