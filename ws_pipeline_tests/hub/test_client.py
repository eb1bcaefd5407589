import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ws_pipeline.errors import ConfigError, HubError, IntegrityError, Reason, RefusedError
from ws_pipeline.hub import pager as pager_module
from ws_pipeline.hub import transport as transport_module
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.retries import MAX_GIVEN_UP
from ws_pipeline.hub.transport import MAX_REDIRECTS
from ws_pipeline_tests.hub.scripted_hub import SHA, TOKEN, ScriptedHub, Sleeps, connect

DATA = bytes(range(256)) * 16
DIGEST = hashlib.sha256(DATA).hexdigest()


def redirect(url: str) -> Response:
    return Response(status_code=307, headers={"Location": url})


# Listing


def test_pages_are_followed_to_the_last_one(scripted: ScriptedHub) -> None:
    def answer(request: Request) -> Response:
        number = int(request.query_params.get("page", "0"))
        headers = {"Link": f'</api/models?page={number + 1}>; rel="next"'} if number < 2 else {}
        return JSONResponse([{"id": number}], headers=headers)

    scripted.answer = answer
    pages = list(connect(scripted.endpoint).list_pages(tags=("a b", "x:y")))
    assert [page.items for page in pages] == [[{"id": 0}], [{"id": 1}], [{"id": 2}]]
    assert [page.cursor for page in pages] == ["/api/models?page=1", "/api/models?page=2", ""]
    first = scripted.requests[0].query_params
    assert first.getlist("filter") == ["a b", "x:y"]
    assert first["sort"] == "createdAt"
    assert "sha" in first.getlist("expand")


def test_a_listing_goes_on_where_an_earlier_one_stopped(scripted: ScriptedHub) -> None:
    list(connect(scripted.endpoint).list_pages(cursor="/api/models?page=7"))
    assert scripted.requests[0].query_params["page"] == "7"


def test_a_cursor_that_leads_elsewhere_is_refused(scripted: ScriptedHub) -> None:
    with pytest.raises(RefusedError, match="A cursor is a path of the hub; got 'http://evil"):
        list(connect(scripted.endpoint, token=TOKEN).list_pages(cursor="//evil.com/api/models"))
    assert scripted.requests == []


def test_the_newest_changes_can_come_first(scripted: ScriptedHub) -> None:
    list(connect(scripted.endpoint).list_pages(order="recent"))
    query = scripted.requests[0].query_params
    assert (query["sort"], query["direction"]) == ("lastModified", "-1")


def test_a_page_that_was_damaged_on_the_way_is_asked_for_again(scripted: ScriptedHub) -> None:
    loop = JSONResponse([], headers={"Link": '</api/models?page=1>; rel="next"'})
    answers = [
        *(
            Response(b"[\xff]"),
            JSONResponse([1], headers={"Link": "</api/models?page=1>; rel=next"}),
        ),
        *(loop, JSONResponse([2])),
    ]
    scripted.answer = lambda _: answers[len(scripted.requests) - 1]
    assert list(connect(scripted.endpoint).list_models()) == [1, 2]


def test_a_link_to_another_origin_is_not_followed(scripted: ScriptedHub) -> None:
    with ScriptedHub().serve() as other:
        link = f'<{other.endpoint}/api/models?page=2>; rel="next"'
        scripted.answer = lambda _: JSONResponse([], headers={"Link": link})
        with pytest.raises(HubError, match="to another origin; not followed"):
            list(connect(scripted.endpoint, token=TOKEN).list_pages())
        assert other.requests == []


def test_a_link_that_is_no_url_is_an_error(scripted: ScriptedHub) -> None:
    scripted.answer = lambda _: JSONResponse([], headers={"Link": '<http://[>; rel="next"'})
    with pytest.raises(HubError, match="something that is no URL"):
        list(connect(scripted.endpoint).list_pages())


def test_a_circle_of_pages_ends(scripted: ScriptedHub) -> None:
    def answer(request: Request) -> Response:
        page = {"": "a", "a": "b", "b": "a"}[request.query_params.get("page", "")]
        return JSONResponse([], headers={"Link": f'</api/models?page={page}>; rel="next"'})

    scripted.answer = answer
    with pytest.raises(HubError, match="goes in a circle after 3 pages"):
        list(connect(scripted.endpoint).list_pages())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a": 1}', "must be a JSON list; got dict"),
        (b"<html>", "is no JSON"),
        (b"[" * 100_000, "may be nested 64 deep"),
        (b"[1" + b"0" * 5000 + b"]", "is no JSON"),
    ],
)
def test_a_page_that_is_no_list_is_an_error(
    scripted: ScriptedHub, body: bytes, message: str
) -> None:
    scripted.answer = lambda _: Response(body)
    with pytest.raises(HubError, match=message):
        list(connect(scripted.endpoint).list_pages())


def test_a_page_beyond_the_cap_is_given_up(
    scripted: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pager_module, "MAX_PAGE_BYTES", 1000)
    scripted.answer = lambda _: Response(b" " * 1001)
    with pytest.raises(HubError, match="sends more than 1000 bytes"):
        list(connect(scripted.endpoint).list_pages())


# Retries, pauses, time


def test_a_busy_hub_is_asked_again(scripted: ScriptedHub) -> None:
    def answer(_: Request) -> Response:
        return Response(status_code=503) if len(scripted.requests) < 3 else JSONResponse([1])

    scripted.answer = answer
    assert list(connect(scripted.endpoint).list_models()) == [1]
    assert len(scripted.requests) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 504])
def test_a_hub_that_stays_busy_is_given_up_with_its_status(
    scripted: ScriptedHub, status: int
) -> None:
    scripted.answer = lambda _: Response(status_code=status)
    with pytest.raises(HubError, match=f"answered {status}; the hub is busy, run again") as caught:
        list(connect(scripted.endpoint).list_models())
    assert caught.value.reason is Reason.UNREACHABLE
    assert len(scripted.requests) == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "86400"}, 330),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
    ],
)
def test_the_pause_that_a_hub_asks_for_is_kept_up_to_a_cap(
    scripted: ScriptedHub, headers: dict[str, str], seconds: float
) -> None:
    scripted.answer = lambda _: Response(status_code=429, headers=headers)
    sleeps = Sleeps()
    with pytest.raises(HubError, match="429"):
        list(connect(scripted.endpoint, sleeps=sleeps).list_models())
    assert len(sleeps.seconds) == 2
    assert all(seconds <= pause <= seconds + 1 for pause in sleeps.seconds)


def test_a_used_up_window_is_waited_for_before_the_next_request(scripted: ScriptedHub) -> None:
    scripted.answer = lambda _: JSONResponse({}, headers={"RateLimit": '"api";r=0;t=40'})
    sleeps = Sleeps()
    client = connect(scripted.endpoint, sleeps=sleeps)
    client.repo_info("a/b", SHA)
    assert sleeps.seconds == []
    client.repo_info("a/b", SHA)
    assert 39 < sleeps.seconds[0] <= 40


def test_a_hub_that_is_down_is_tried_once_per_request_until_it_is_back(
    scripted: ScriptedHub,
) -> None:
    scripted.answer = lambda _: Response(status_code=503)
    client = connect(scripted.endpoint)
    for _ in range(MAX_GIVEN_UP + 2):
        with pytest.raises(HubError, match="503"):
            client.repo_info("a/b", SHA)
    assert len(scripted.requests) == 3 * MAX_GIVEN_UP + 2
    scripted.answer = lambda _: JSONResponse({})
    client.repo_info("a/b", SHA)
    scripted.reset()
    scripted.answer = lambda _: Response(status_code=503)
    with pytest.raises(HubError, match="503"):
        client.repo_info("a/b", SHA)
    assert len(scripted.requests) == 3


def test_nobody_listening_is_one_clear_error() -> None:
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 did not answer .* check the endpoint"):
        list(connect("http://127.0.0.1:9").list_models())


def test_a_hub_on_this_machine_is_not_looked_for_behind_a_proxy(
    scripted: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert list(connect(scripted.endpoint).list_models()) == []


def test_a_drip_is_given_up(scripted: ScriptedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "DEADLINE_SECONDS", -1.0)
    scripted.answer = lambda _: JSONResponse([])
    with pytest.raises(HubError, match="is too slow; check the network"):
        list(connect(scripted.endpoint).list_models())


# What a refusal means


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, Reason.NOT_FOUND),
        (404, {}, Reason.NOT_FOUND),
        (410, {}, Reason.NOT_FOUND),
        (401, {"X-Error-Code": "RepoNotFound"}, Reason.NOT_FOUND),
        (401, {}, Reason.PRIVATE),
        (403, {}, Reason.PRIVATE),
        (401, {"X-Error-Code": "GatedRepo"}, Reason.GATED),
        (403, {"X-Error-Code": "GatedRepo"}, Reason.GATED),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, Reason.DISABLED),
        (418, {}, Reason.UNREACHABLE),
    ],
)
def test_a_refusal_has_its_reason_and_is_not_repeated(
    scripted: ScriptedHub, status: int, headers: dict[str, str], reason: Reason
) -> None:
    scripted.answer = lambda _: Response(status_code=status, headers=headers)
    with pytest.raises(HubError, match=r"^The repo is |/api/models/a/b/revision/") as caught:
        connect(scripted.endpoint).repo_info("a/b", SHA)
    assert caught.value.reason is reason
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a/..", "a b/c", "a/b?x", "é/b", "a" * 200])
def test_a_name_that_is_no_repo_is_not_asked_for(scripted: ScriptedHub, name: str) -> None:
    with pytest.raises(RefusedError, match="A repo is named owner/name"):
        connect(scripted.endpoint).repo_info(name, SHA)
    assert scripted.requests == []


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../../api/whoami-v2", "a/./b", "a\\b", "a\n"])
def test_a_file_name_that_leads_elsewhere_is_not_asked_for(
    scripted: ScriptedHub, name: str
) -> None:
    with pytest.raises(RefusedError, match="no plain relative file name") as caught:
        connect(scripted.endpoint).read_range("a/b", SHA, name, 0, 8)
    assert caught.value.reason is Reason.UNSAFE_FILE_NAME
    assert scripted.requests == []


@pytest.mark.parametrize(
    "url", ["", "huggingface.co", "ftp://x", "http://", "http://h/?a=b", "http://[", "http://h:x"]
)
def test_an_endpoint_has_to_be_a_url(url: str) -> None:
    with pytest.raises(ConfigError, match="endpoint is a URL such as"):
        HubClient(url)


# Token and origin


def test_the_token_goes_to_the_origin_with_a_user_agent_that_names_the_project(
    scripted: ScriptedHub,
) -> None:
    list(connect(scripted.endpoint, token=TOKEN).list_models())
    headers = scripted.requests[0].headers
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["user-agent"].startswith("ws_pipeline/")


def test_a_renamed_repo_is_followed_within_the_origin_with_the_token(
    scripted: ScriptedHub,
) -> None:
    def answer(request: Request) -> Response:
        if "/old/" in request.url.path:
            return redirect(request.url.path.replace("/old/", "/new/"))
        return JSONResponse({"id": "new/name"})

    scripted.answer = answer
    info = connect(scripted.endpoint, token=TOKEN).repo_info("old/name", SHA)
    assert info["id"] == "new/name"
    assert scripted.requests[1].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.read_range("a/b", SHA, "f", 0, 8),
        lambda client: client.repo_info("a/b", SHA),
    ],
)
def test_a_redirect_to_another_origin_over_http_is_not_followed(
    scripted: ScriptedHub, ask: Callable[[HubClient], object]
) -> None:
    with ScriptedHub().serve() as other:
        scripted.answer = lambda _: redirect(f"{other.endpoint}/x?X-Amz-Signature=secret")
        client = connect(scripted.endpoint, token=TOKEN)
        with pytest.raises(HubError, match="redirects to another origin; not followed") as caught:
            ask(client)
        assert other.requests == []
        assert "secret" not in str(caught.value)


def test_the_token_is_not_for_another_origin_even_over_https(scripted: ScriptedHub) -> None:
    transport = connect(scripted.endpoint, token=TOKEN)._transport
    assert "Authorization" in transport._headers(f"{scripted.endpoint}/x", {}, is_file=True)
    for url in ("https://cdn.example/x", scripted.endpoint.replace("127.0.0.1", "localhost")):
        assert "Authorization" not in transport._headers(url, {}, is_file=True)


def test_a_circle_of_redirects_ends(scripted: ScriptedHub) -> None:
    scripted.answer = lambda request: redirect(request.url.path)
    with pytest.raises(HubError, match=f"redirects more than {MAX_REDIRECTS} times"):
        connect(scripted.endpoint).repo_info("a/b", SHA)
    assert len(scripted.requests) == 3 * (MAX_REDIRECTS + 1)  # it may have been a bad moment


@pytest.mark.parametrize("location", ["", "http://[", "//", "javascript:1", "file:///etc/passwd"])
def test_a_redirect_to_nowhere_is_an_error(scripted: ScriptedHub, location: str) -> None:
    scripted.answer = lambda _: redirect(location)
    with pytest.raises(HubError, match="redirect"):
        connect(scripted.endpoint).repo_info("a/b", SHA)


def test_the_token_is_in_no_log_error_or_repr(
    scripted: ScriptedHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scripted.answer = lambda _: Response(status_code=500)
    client = connect(scripted.endpoint, token=TOKEN)
    with pytest.raises(HubError, match="500") as caught:
        list(client.list_models())
    said = caplog.text + str(caught.value) + repr(caught.value) + repr(client)
    assert TOKEN not in said


# Ranges


def serve_ranges(request: Request, data: bytes = DATA) -> Response:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return Response(data)
    start, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
    headers = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
    return Response(data[start : end + 1], status_code=206, headers=headers)


def test_a_range_is_exact(scripted: ScriptedHub) -> None:
    scripted.answer = serve_ranges
    assert connect(scripted.endpoint).read_range("a/b", SHA, "x/f", 10, 20) == DATA[10:30]
    assert scripted.paths == [f"/a/b/resolve/{SHA}/x/f"]


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(DATA[:8]), "asked for bytes 0-7, the hub answered 200"),
        (Response(DATA), "sends more than 8 bytes"),
        (Response(DATA[:8], 206), "answered 206 with range ''"),
        (
            Response(DATA[:8], 206, headers={"Content-Range": "bytes 1-8/4096"}),
            "answered 206 with range 'bytes 1-8/4096'",
        ),
        (
            Response(DATA[:7], 206, headers={"Content-Range": "bytes 0-7/4096"}),
            "asked for 8 bytes, got 7",
        ),
    ],
)
def test_a_wrong_range_is_an_error(scripted: ScriptedHub, response: Response, message: str) -> None:
    scripted.answer = lambda _: response
    with pytest.raises(HubError, match=message):
        connect(scripted.endpoint).read_range("a/b", SHA, "f", 0, 8)


def test_an_empty_range_is_refused(scripted: ScriptedHub) -> None:
    with pytest.raises(RefusedError, match="A range needs start >= 0 and a byte; got 0, 0"):
        connect(scripted.endpoint).read_range("a/b", SHA, "f", 0, 0)


# Downloads


def download(client: HubClient, path: Path, **stated: str) -> str:
    return client.download("a/b", SHA, "f", path, num_bytes=len(DATA), **stated)


def test_a_download_is_checked_against_its_sha256(scripted: ScriptedHub, tmp_path: Path) -> None:
    scripted.answer = serve_ranges
    assert download(connect(scripted.endpoint), tmp_path / "f", sha256=DIGEST) == DIGEST
    assert (tmp_path / "f").read_bytes() == DATA


def test_wrong_bytes_of_the_right_length_are_noticed(scripted: ScriptedHub, tmp_path: Path) -> None:
    scripted.answer = lambda _: Response(DATA[::-1])
    with pytest.raises(IntegrityError, match=r"f of a/b should have sha256 .* fetched again"):
        download(connect(scripted.endpoint), tmp_path / "f", sha256=DIGEST)


def test_a_small_file_is_checked_as_a_git_blob(scripted: ScriptedHub, tmp_path: Path) -> None:
    blob_id = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()
    scripted.answer = serve_ranges
    assert download(connect(scripted.endpoint), tmp_path / "f", blob_id=blob_id) == DIGEST
    with pytest.raises(IntegrityError, match="should be git blob 000000000000"):
        download(connect(scripted.endpoint), tmp_path / "f", blob_id="0" * 40)


def test_a_cut_connection_is_resumed_by_range(scripted: ScriptedHub, tmp_path: Path) -> None:
    def answer(request: Request) -> Response:
        if len(scripted.requests) == 1:
            return StreamingResponse(iter([DATA[:1000]]))
        return serve_ranges(request)

    scripted.answer = answer
    assert download(connect(scripted.endpoint), tmp_path / "f", sha256=DIGEST) == DIGEST
    assert [r.headers.get("range") for r in scripted.requests] == [None, "bytes=1000-"]


def test_a_server_without_ranges_is_read_from_the_start_again(
    scripted: ScriptedHub, tmp_path: Path
) -> None:
    def answer(_: Request) -> Response:
        cut = 1000 if len(scripted.requests) == 1 else None
        return StreamingResponse(iter([DATA[:cut]]))

    scripted.answer = answer
    assert download(connect(scripted.endpoint), tmp_path / "f", sha256=DIGEST) == DIGEST
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_resumption_at_the_wrong_place_starts_over(scripted: ScriptedHub, tmp_path: Path) -> None:
    def answer(request: Request) -> Response:
        if len(scripted.requests) == 1:
            return StreamingResponse(iter([DATA[:1000]]))
        if len(scripted.requests) == 2:
            return Response(DATA[:10], 206, headers={"Content-Range": "bytes 0-9/4096"})
        return serve_ranges(request)

    scripted.answer = answer
    assert download(connect(scripted.endpoint), tmp_path / "f", sha256=DIGEST) == DIGEST


def test_a_file_that_stays_short_is_an_error(scripted: ScriptedHub, tmp_path: Path) -> None:
    scripted.answer = lambda _: StreamingResponse(iter([DATA[:-1]]))
    with pytest.raises(HubError, match="gave 4095 of 4096 bytes; the hub cut it off, run again"):
        download(connect(scripted.endpoint), tmp_path / "f", sha256=DIGEST)


def test_a_file_longer_than_stated_is_given_up_at_once(
    scripted: ScriptedHub, tmp_path: Path
) -> None:
    scripted.answer = lambda _: Response(DATA + b"!")
    with pytest.raises(IntegrityError, match="sends more than the 4096 bytes that it stated"):
        download(connect(scripted.endpoint), tmp_path / "f", sha256=DIGEST)
    assert len(scripted.requests) == 1
