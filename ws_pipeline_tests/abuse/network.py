"""Hostile answers: redirects, links, statuses, lengths, ranges, encodings, bodies, ETags."""

# ruff: noqa: E501 - a case per line reads as a table

import functools
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from ws_pipeline_tests.abuse.case import (
    HARMLESS,
    REPO,
    SHA,
    SIGNATURE,
    Answer,
    Case,
    Context,
    respond,
    respond_json,
)

DATA = bytes(range(256)) * 8
SHA256 = hashlib.sha256(DATA).hexdigest()
RANGE = (100, 50)
PART = DATA[100:150]


def read_range(ctx: Context, _: Any) -> bytes:
    got = ctx.client.read_range(REPO, SHA, "model.safetensors", *RANGE)
    assert got == PART
    return got


def read_page(ctx: Context, _: Any) -> object:
    return list(ctx.client.list_pages())


def read_detail(ctx: Context, _: Any) -> object:
    return ctx.client.repo_info(REPO, SHA)


def read_index(ctx: Context, _: Any) -> object:
    return ctx.client.read_file(REPO, SHA, "model.safetensors.index.json", max_bytes=1000)


def read_whole_by_range(ctx: Context, _: object) -> object:
    return ctx.client.read_range(REPO, SHA, "m.safetensors", 0, len(DATA), sha256=SHA256)


def download(ctx: Context, _: Any) -> None:
    with ctx.store.blobs.parts.lock(SHA256) as part:
        ctx.client.download(REPO, SHA, "m.safetensors", part, sha256=SHA256, num_bytes=len(DATA))
        ctx.store.blobs.put_file(part, sha256=SHA256)
        part.unlink()
    assert ctx.store.blobs.read(SHA256) == DATA


def always(answer: bytes) -> Answer:
    return lambda _head, _elsewhere: [answer]


def redirect(to: str, status: str = "302 Found") -> Answer:
    """A redirect; {elsewhere}, {port} and {path} are filled in, the query is a signed one."""

    def answer(head: str, elsewhere: str) -> Iterable[bytes]:
        path = head.split(" ", 2)[1].partition("?")[0]
        location = to.replace("{elsewhere}", elsewhere).replace("{path}", path)
        return [respond(status, Location=location)]

    return answer


def whole(body: bytes = DATA, **headers: str | int) -> bytes:
    return respond("200 OK", body, **headers)


def partial(body: bytes = PART, stated: str = "bytes 100-149/2048", **headers: str | int) -> bytes:
    return respond("206 Partial Content", body, **{"Content_Range": stated, **headers})


def endless(head: bytes, unit: bytes) -> Answer:
    def answer(_head: str, _elsewhere: str) -> Iterator[bytes]:
        yield head
        for _ in range(4000):  # 256 MB, far beyond what anybody is willing to read
            yield unit

    return answer


@functools.cache
def bomb() -> bytes:
    """100 MiB of zeros in 100 kB."""
    return gzip.compress(bytes(100 * 2**20), 6)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
ZEROS = bytes(64 * 1024)

REDIRECTS: dict[str, str] = {
    "another origin": "{elsewhere}{path}?" + SIGNATURE,
    "another origin with credentials": "http://user:hf_x@127.0.0.1:1/x?" + SIGNATURE,
    "another port of the host": "http://127.0.0.1:9/x?" + SIGNATURE,
    "scheme-relative": "//127.0.0.1:9/x?" + SIGNATURE,
    "backslash host": "\\\\127.0.0.1:9\\x?" + SIGNATURE,
    "a file": "file:///etc/passwd",
    "a data URL": "data:application/json,[]",
    "ftp": "ftp://127.0.0.1/x?" + SIGNATURE,
    "javascript": "javascript:alert(1)",
    "the metadata service": "http://169.254.169.254/latest/meta-data/?" + SIGNATURE,
    "IPv6 literal that is none": "http://[::1/x?" + SIGNATURE,
    "a port that is none": "http://127.0.0.1:99999/x?" + SIGNATURE,
    "a port that is text": "http://127.0.0.1:eight/x?" + SIGNATURE,
    "nowhere": "",
    "a circle": "{path}?again=1",
    "control characters": "http://127.0.0.1:9/\x01\x02?" + SIGNATURE,
}
LINKS: dict[str, str] = {
    "another origin": "<{elsewhere}/api/models?" + SIGNATURE + '>; rel="next"',
    "another port": '<http://127.0.0.1:9/api/models>; rel="next"',
    "a file": '<file:///etc/passwd>; rel="next"',
    "the same page": '<{path}>; rel="next"',
    "no URL": '<http://[>; rel="next"',
    "scheme-relative": '<//127.0.0.1:9/api>; rel="next"',
    "credentials": '<http://hub@127.0.0.1:9/api>; rel="next"',
}


def link(to: str) -> Answer:
    def answer(head: str, elsewhere: str) -> Iterable[bytes]:
        path = head.split(" ", 2)[1]
        return [respond_json([], Link=to.replace("{elsewhere}", elsewhere).replace("{path}", path))]

    return answer


RANGES: dict[str, Answer] = {
    "200 instead of 206": always(whole(PART)),
    "200 with the whole file": always(whole()),
    "another range": always(partial(stated="bytes 0-49/2048")),
    "a shorter range": always(partial(PART[:10], stated="bytes 100-109/2048")),
    "a range of another unit": always(partial(stated="words 100-149/2048")),
    "no range": always(respond("206 Partial Content", PART)),
    "a range that is text": always(partial(stated="bytes all")),
    "a body too short": always(partial(PART[:-1])),
    "a body too long": always(partial(PART + b"!")),
    "an empty body": always(partial(b"")),
    "a length too long": always(partial(Content_Length=51)),
    "a negative length": always(partial(Content_Length=-1)),
    "a length of 2^64": always(partial(Content_Length=2**64)),
    "a length that is text": always(partial(Content_Length="many")),
    "two lengths": always(partial(Content_Length="50\r\nContent-Length: 51")),
    "multipart ranges": always(partial(Content_Type="multipart/byteranges; boundary=x", stated="")),
    "a body that never ends": endless(
        CHUNKED.replace(b"200 OK", b"206 Partial"), b"1\r\nx\r\n" * 99
    ),
}

DOWNLOADS: dict[str, tuple[Answer, str]] = {
    "corrupt bytes of the right length": (
        always(whole(DATA[:-1] + b"!")), "sha256_mismatch"),
    "other bytes of the right length": (always(whole(bytes(len(DATA)))), "sha256_mismatch"),
    "more bytes than stated": (always(whole(DATA + b"!")), "sha256_mismatch"),
    "bytes without end": (
        endless(CHUNKED, b"10000\r\n" + ZEROS + b"\r\n"), "sha256_mismatch"),
    "a cut body": (always(whole(DATA[:500], Content_Length=len(DATA))), "unreachable"),
    "an empty body": (always(whole(b"")), "unreachable"),
    "the right bytes in gzip": (
        always(whole(gzip.compress(DATA[:100]), Content_Encoding="gzip")), "unreachable"),
    "a resumed range elsewhere": (
        lambda head, _: [
            respond("206 Partial Content", DATA[600:], Content_Range="bytes 600-2047/2048")
            if "ange: bytes=" in head
            else whole(DATA[:500], Content_Length=len(DATA))
        ], "unreachable"),
    "an error page": (always(respond("404 Not Found", b"<html>")), "not_found"),
    "another revision": (always(whole(X_Repo_Commit="b" * 40)), "unreachable"),
    "a revision that climbs": (always(whole(X_Repo_Commit="../../evil")), "unreachable"),
}  # fmt: skip

HARMLESS_DOWNLOADS: dict[str, dict[str, str | int]] = {
    "an ETag that climbs": {"ETag": '"../../../../evil"'},
    "an ETag of 60 kB": {"ETag": "a" * 60_000},
    "an absolute ETag": {"ETag": "/etc/evil", "X_Linked_ETag": "../evil"},
    "a file name that climbs": {"Content_Disposition": 'attachment; filename="../../evil"'},
    "a cookie": {"Set_Cookie": "session=hf_evil; Domain=127.0.0.1"},
    "a Content-Location elsewhere": {"Content_Location": "http://127.0.0.1:9/evil"},
}

PAGES: dict[str, tuple[Answer, str]] = {
    "an object": (always(respond_json({})), "unreachable"),
    "null": (always(respond_json(None)), "unreachable"),
    "HTML": (always(whole(b"<html>")), "unreachable"),
    "empty": (always(whole(b"")), "unreachable"),
    "UTF-16 without end": (always(whole(b"\xff\xfe[")), "unreachable"),
    "100,000 deep": (always(whole(b"[" * 100_000)), "unreachable"),
    "5000 digits": (always(whole(b"[" + b"9" * 5000 + b"]")), "unreachable"),
    "15 MB of brackets": (lambda *_: [whole(b"[" + b"[]," * 5_000_000 + b"1]")], "unreachable"),
    "15 MB of empty strings": (lambda *_: [whole(b"[" + b'"",' * 5_000_000 + b"1]")], "unreachable"),
    "17 MB": (lambda *_: [whole(b"[" + b" " * 17 * 2**20 + b"]")], "unreachable"),
    "bytes without end": (endless(CHUNKED, b"10000\r\n" + ZEROS + b"\r\n"), "unreachable"),
    "a gzip bomb": (
        lambda *_: [whole(bomb(), Content_Encoding="gzip")],
        "unreachable"),
    "a gzip bomb in a gzip": (
        lambda *_: [whole(gzip.compress(bomb()),
                          Content_Encoding="gzip, gzip")], "unreachable"),
    "a deflate bomb": (
        lambda *_: [whole(zlib.compress(bytes(100 * 2**20), 6), Content_Encoding="deflate")],
        "unreachable"),
    "gzip that is none": (always(whole(b"[]", Content_Encoding="gzip")), "unreachable"),
    "a header without end": (
        lambda *_: [b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 2**20], "unreachable"),
    "a hundred thousand headers": (
        lambda *_: [b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000], "unreachable"),
    "no HTTP": (always(b"SSH-2.0-OpenSSH_9.9\r\n"), "unreachable"),
    "nothing": (always(b""), "unreachable"),
    "status 999": (always(respond("999 What")), "unreachable"),
    "status 204": (always(b"HTTP/1.1 204 No Content\r\n\r\n"), "unreachable"),
    "a chunk of 2^64": (
        always(CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nxx"), "unreachable"),
    "Retry-After of a century": (
        always(respond("429 Too Many", Retry_After=3_155_760_000)), "unreachable"),
    "Retry-After of minus one": (always(respond("429 Too Many", Retry_After=-1)), "unreachable"),
    "Retry-After NaN": (always(respond("429 Too Many", Retry_After="nan")), "unreachable"),
    "Retry-After infinite": (always(respond("503 Busy", Retry_After="inf")), "unreachable"),
    "RateLimit that is none": (
        always(respond("429 Too Many", RateLimit='"api";r=x;t=' + "9" * 400)), "unreachable"),
    "a secret in an error": (
        always(respond("400 Bad", X_Error_Message=SIGNATURE)), "unreachable"),
}  # fmt: skip

DETAILS: dict[str, tuple[Answer, str]] = {
    "a list": (always(respond_json([])), "unreachable"),
    "a string": (always(respond_json("x")), "unreachable"),
    "16 MB of brackets in the card": (
        lambda *_: [whole(b'{"cardData":[' + b"[]," * 5_000_000 + b"1]}")], "unreachable"),
    "a card 500 deep": (
        always(whole(b'{"cardData":' + b"[" * 500 + b"]" * 500 + b"}")), "unreachable"),
    "a million files": (
        lambda *_: [whole(json.dumps({"siblings": [{}] * 10**6}).encode())], "unreachable"),
    "gated": (always(respond("403 Forbidden", X_Error_Code="GatedRepo")), "gated"),
    "disabled": (
        always(respond("403 Forbidden", X_Error_Message="Access to this resource is disabled.")),
        "disabled"),
}  # fmt: skip


def cases() -> Iterator[Case]:
    for name, to in REDIRECTS.items():
        for what, run in (("file", read_range), ("page", read_page)):
            yield Case(
                surface=f"redirect of a {what}", name=name, reason="unreachable", run=run,
                answer=redirect(to, "302 Found" if what == "file" else "307 Temporary"),
            )  # fmt: skip
    for name, to in LINKS.items():
        yield Case(surface="link", name=name, reason="unreachable", run=read_page, answer=link(to))
    for name, answer in RANGES.items():
        yield Case(surface="range", name=name, reason="unreachable", run=read_range, answer=answer)
    for run, table, surface in (
        (download, DOWNLOADS, "download"),
        (read_page, PAGES, "page"),
        (read_detail, DETAILS, "answer"),
    ):
        for name, (answer, reason) in table.items():
            yield Case(surface=surface, name=name, reason=reason, run=run, answer=answer)
    for name, headers in HARMLESS_DOWNLOADS.items():
        yield Case(
            surface="download", name=name, reason=HARMLESS, run=download,
            answer=always(whole(**headers)),
        )  # fmt: skip
    yield Case(
        surface="range", name="of a whole file, with other bytes", reason="sha256_mismatch",
        run=read_whole_by_range,
        answer=always(partial(bytes(len(DATA)), stated=f"bytes 0-{len(DATA) - 1}/{len(DATA)}")),
    )  # fmt: skip
    yield Case(
        surface="file of an index", name="beyond its stated size", reason="unreachable",
        run=read_index, answer=endless(CHUNKED, b"10000\r\n" + ZEROS + b"\r\n"),
    )  # fmt: skip
