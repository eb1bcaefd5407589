"""Hostile listing rows, file names, sizes, shard indexes, cards and configs."""

# ruff: noqa: E501 - a case per line reads as a table

import json
from collections.abc import Callable, Iterator
from typing import Any

from ws_pipeline.hub.listing import parse_detail, parse_listing
from ws_pipeline.hub.server.metadata import parse_front_matter, parse_json_object
from ws_pipeline.hub.weight_files import find_weight_files, parse_index
from ws_pipeline.storage.blobs import blob_key
from ws_pipeline.storage.manifests import manifest_key
from ws_pipeline_tests.abuse.case import HARMLESS, SHA, Case, Context

ROW: dict[str, Any] = {
    "_id": "507f1f77bcf86cd799439011",
    "id": "owner/name",
    "sha": SHA,
    "createdAt": "2024-01-02T03:04:05.000Z",
    "lastModified": "2024-02-02T03:04:05.000Z",
    "tags": ["bert"],
    "siblings": [{"rfilename": "model.safetensors", "size": 10}],
}
SHARD = "m-00001-of-00001.safetensors"

ROWS: dict[str, object] = {
    "null": None, "a list": [], "a string": "owner/name", "a number": 7,
    "no id": ROW | {"id": None}, "id is a number": ROW | {"id": 7}, "id is a list": ROW | {"id": []},
    "id climbs": ROW | {"id": "../name"}, "id climbs twice": ROW | {"id": "owner/.."},
    "id has three parts": ROW | {"id": "a/b/c"}, "id is absolute": ROW | {"id": "/name"},
    "id is another API path": ROW | {"id": "api/models/../whoami-v2"},
    "id has a query": ROW | {"id": "owner/name?x=1"}, "id has a fragment": ROW | {"id": "owner/n#"},
    "id has a NUL": ROW | {"id": "owner/na\0me"}, "id has a newline": ROW | {"id": "owner/name\n"},
    "id is percent-encoded": ROW | {"id": "owner/%2e%2e"}, "id is empty": ROW | {"id": ""},
    "id of a megabyte": ROW | {"id": "o/" + "n" * 2**20}, "id in Cyrillic": ROW | {"id": "о/nаme"},
    "_id is a path": ROW | {"_id": "../../x"}, "_id is a number": ROW | {"_id": 5},
    "_id is empty": ROW | {"_id": ""}, "_id of 65 letters": ROW | {"_id": "a" * 65},
    "_id with a newline": ROW | {"_id": "abc\n"}, "sha of 39 digits": ROW | {"sha": "a" * 39},
    "sha of 41 digits": ROW | {"sha": "a" * 41}, "sha in capitals": ROW | {"sha": "A" * 40},
    "sha is a branch": ROW | {"sha": "main"}, "sha is null": ROW | {"sha": None},
    "sha is a path": ROW | {"sha": "../" + "a" * 37}, "sha with a newline": ROW | {"sha": SHA + "\n"},
    "sha in other digits": ROW | {"sha": "１" * 40}, "date is text": ROW | {"createdAt": "soon"},
    "date is a number": ROW | {"createdAt": 1e18}, "date in the year 1": ROW | {"createdAt": "0001-01-01"},
    "date in the year 9999": ROW | {"lastModified": "9999-12-31T23:59:59+00:00"},
    "date off the calendar": ROW | {"lastModified": "0001-01-01T00:00:00+23:59"},
    "date of 1 MB": ROW | {"lastModified": "2" * 2**20}, "private is a word": ROW | {"private": "no"},
    "disabled is a number": ROW | {"disabled": 0}, "gated is a list": ROW | {"gated": ["auto"]},
    "gated is unknown": ROW | {"gated": "maybe"},
}  # fmt: skip

DETAILS: dict[str, dict[str, Any]] = {
    "tags is a string": {"tags": "bert"}, "tags hold a number": {"tags": [1]},
    "a tag of 513 bytes": {"tags": ["t" * 513]}, "5000 tags": {"tags": ["t"] * 5000},
    "a tag with an escape sequence": {"tags": ["\x1b[31m"]}, "config is a list": {"config": [1]},
    "model type is an object": {"config": {"model_type": {}}},
    "model type of 1 kB": {"config": {"model_type": "m" * 1000}},
    "architectures is a string": {"config": {"architectures": "A"}},
    "33 architectures": {"config": {"architectures": ["A"] * 33}},
    "card is a string": {"cardData": "mit"}, "library is a list": {"library_name": ["timm"]},
    "library with a newline": {"library_name": "a\nb"},
    "relation is an object": {"cardData": {"base_model_relation": {"a": 1}}},
    "siblings is an object": {"siblings": {"a": 1}}, "sibling is a string": {"siblings": ["a"]},
    "essential card of 100 kB": {"cardData": {"license": "m" * 100_000}},
    "essential config of 100 kB": {"config": {"auto_map": {"a": "b" * 100_000}}},
}  # fmt: skip

LFS = {"size": 10, "sha256": "b" * 64}
FILES: dict[str, dict[str, Any]] = {
    "size is negative": {"size": -1}, "size is null": {"size": None}, "size is text": {"size": "10"},
    "size is a fraction": {"size": 1.5}, "size is true": {"size": True},
    "size above int64": {"size": 2**63}, "size of 2 TB": {"size": 2**41},
    "lfs size is negative": {"lfs": LFS | {"size": -5}},
    "sha256 of 63 digits": {"lfs": LFS | {"sha256": "b" * 63}},
    "sha256 of 40 digits": {"lfs": LFS | {"sha256": "b" * 40}},
    "sha256 in capitals": {"lfs": LFS | {"sha256": "B" * 64}},
    "sha256 is a path": {"lfs": LFS | {"sha256": "../" + "b" * 61}},
    "sha256 is a list": {"lfs": LFS | {"sha256": ["b"]}},
    "sha256 with a newline": {"lfs": LFS | {"sha256": "b" * 64 + "\n"}},
    "blob id is a path": {"blobId": "../../evil"}, "blob id is a number": {"blobId": 5},
}  # fmt: skip

NAMES: dict[str, object] = {
    "parent": "..", "climbs": "../x.safetensors", "climbs inside": "a/../../x", "dot": ".",
    "climbs to itself": "a/../a.safetensors", "absolute": "/etc/passwd", "double slash": "a//b",
    "leading dot part": "./model.safetensors", "inner dot part": "a/./b", "trailing slash": "a/",
    "two leading slashes": "//host/share", "drive": "C:\\x", "drive with slash": "C:/x",
    "drive-relative": "c:x", "UNC": "\\\\host\\share", "backslash climbs": "..\\x", "backslash": "a\\b",
    "NTFS stream": "model.safetensors:evil", "device path": "\\\\?\\C:\\x", "NUL": "a\0.safetensors",
    "newline": "a\nb", "carriage return": "a\rb", "tab": "a\tb", "bell": "a\x07", "DEL": "a\x7f",
    "right-to-left override": "gpj.\u202esafetensors", "zero-width": "a\u200b.safetensors",
    "line separator": "a\u2028b", "lone surrogate": "a\ud800", "513 bytes": "a" * 513,
    "a megabyte": "a/" * 2**19 + "a", "empty": "", "another repo's URL": "https://hub/o/n/resolve/main/x",
    "file URL": "file:///etc/passwd", "null": None, "a number": 5, "a list": ["a"], "no-break space": "a\xa0b",
}  # fmt: skip

CARD = b"---\n%s\n---\n# Model\n"
CARDS: dict[str, Callable[[], bytes]] = {
    "billion laughs": lambda: (
        CARD
        % b"\n".join(
            [b"a0: &a0 [x,x,x,x,x,x,x,x,x]"]
            + [b"a%d: &a%d [%s]" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)]
        )
    ),
    "an alias to itself": lambda: CARD % b"a: &a [*a]",
    "merge keys": lambda: CARD % b"a: &a {x: 1}\nb:\n  <<: *a",
    "python object": lambda: CARD % b"a: !!python/object/apply:os.system ['touch /tmp/evil']",
    "python name": lambda: CARD % b"a: !!python/name:os.system",
    "python module": lambda: CARD % b"!!python/module:os",
    "unknown tag": lambda: CARD % b"a: !evil x",
    "10,000 deep in flow": lambda: CARD % (b"a: " + b"[" * 10_000),
    "10,000 deep in blocks": lambda: CARD % b"\n".join(b" " * i + b"a:" for i in range(700)),
    "10 MB of front matter": lambda: CARD % (b"a: b\n" * 2_000_000),
    "front matter without end": lambda: b"---\na: b\n" * 1,
    "a list": lambda: CARD % b"- a",
    "a date that is none": lambda: CARD % b"a: 2024-99-99",
    "a sexagesimal of 200,000 digits": lambda: CARD % (b"a: 1" + b":59" * 60_000),
    "an integer of 200,000 digits": lambda: CARD % (b"a: " + b"9" * 200_000),
    "an unhashable key": lambda: CARD % b"? [a]\n: b",
    "tabs": lambda: CARD % b"a:\n\t- b",
    "NUL": lambda: CARD % b"a: \0",
    "two documents": lambda: CARD % b"a: 1\n...\nb: 2",
}

CONFIGS: dict[str, Callable[[], bytes]] = {
    "100,000 deep": lambda: b'{"a":' + b"[" * 100_000,
    "5000 digits": lambda: b'{"a":' + b"9" * 5000 + b"}",
    "a list": lambda: b"[1]",
    "NaN of a model type": lambda: b"NaN",
    "not UTF-8": lambda: b'{"a":"\xff\xfe"}',
    "empty": lambda: b"",
    "8 MB of brackets": lambda: b'{"a":[' + b"[]," * 2_700_000 + b"1]}",
    "8 MB of empty strings": lambda: b'{"a":[' + b'"",' * 2_700_000 + b"1]}",
}


def weight_map(value: object) -> bytes:
    return json.dumps({"weight_map": value}).encode()


def shard(name: object) -> Callable[[], bytes]:
    return lambda: weight_map({"w": name})


INDEXES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no JSON": (lambda: b"<html>", "invalid_index"),
    "a list": (lambda: b"[]", "invalid_index"),
    "null": (lambda: b"null", "invalid_index"),
    "no weight map": (lambda: b"{}", "invalid_index"),
    "weight map is a list": (lambda: weight_map(["a"]), "invalid_index"),
    "weight map is empty": (lambda: weight_map({}), "invalid_index"),
    "duplicate tensor": (
        lambda: b'{"weight_map":{"w":"%b","w":"x"}}' % SHARD.encode(), "invalid_index"),
    "duplicate weight map": (lambda: b'{"weight_map":{},"weight_map":{"w":"x"}}', "invalid_index"),
    "100,000 deep": (lambda: b'{"a":' + b"[" * 100_000, "invalid_index"),
    "30 MB of brackets": (lambda: b'{"a":[' + b"[]," * 10_000_000 + b"1]}", "invalid_index"),
    "30 MB of empty strings": (lambda: b'{"a":[' + b'"",' * 10_000_000 + b"1]}", "invalid_index"),
    "33 MB": (lambda: b'{"a":"' + b"x" * 33 * 2**20 + b'"}', "invalid_index"),
    "5000 digits": (lambda: b'{"metadata":' + b"9" * 5000 + b"}", "invalid_index"),
    "NaN": (lambda: b'{"metadata":NaN}', "invalid_index"),
    "a million tensors": (
        lambda: weight_map({f"{i:x}": SHARD for i in range(10**6)})[: 31 * 2**20], "invalid_index"),
    "700,000 short tensors": (
        lambda: weight_map({f"{i:x}": "s" for i in range(700_000)}), "invalid_index"),
    "200,000 files": (
        lambda: weight_map({f"{i}": f"{i}.safetensors" for i in range(200_000)}), "invalid_index"),
    "a file of no safetensors": (shard("pytorch_model.bin"), "invalid_index"),
    "a file that is not listed": (shard("other.safetensors"), "invalid_index"),
    "file is a list": (shard(["a"]), "unsafe_file_name"),
    "file is null": (shard(None), "unsafe_file_name"),
    "climbs to the API": (shard("../../../api/whoami-v2"), "unsafe_file_name"),
    "climbs to another repo": (
        shard("../../other/gated/resolve/main/model.safetensors"), "unsafe_file_name"),
    "absolute": (shard("/etc/passwd"), "unsafe_file_name"),
    "another repo's URL": (
        shard("https://huggingface.co/o/n/resolve/main/model.safetensors"), "unsafe_file_name"),
    "another host": (shard("//evil.example/" + SHARD), "unsafe_file_name"),
    "./ alias": (shard("./" + SHARD), "unsafe_file_name"),
    "// alias": (shard("a//" + SHARD), "unsafe_file_name"),
    "NUL": (shard(SHARD + "\0"), "unsafe_file_name"),
    "newline": (shard(SHARD + "\n"), "unsafe_file_name"),
    "percent-encoded": (shard("%2e%2e/x.safetensors"), "invalid_index"),
    "query": (shard(SHARD + "?download=true"), "invalid_index"),
}  # fmt: skip

PICKLES = (
    *("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl", "model.pickle"),
    *("model.npy", "model.npz", "model.h5", "model.keras", "model.joblib", "MODEL.BIN"),
)

KEYS: dict[str, Callable[[], object]] = {
    "blob named by a path": lambda: blob_key("../../../../evil"),
    "blob named by an etag": lambda: blob_key('"' + "a" * 62 + '"'),
    "blob in capitals": lambda: blob_key("A" * 64),
    "blob with a newline": lambda: blob_key("a" * 64 + "\n"),
    "manifest of a climbing id": lambda: manifest_key("headers", "..", SHA, "1"),
    "manifest of a slashed id": lambda: manifest_key("headers", "a/b", SHA, "1"),
    "manifest of a hidden id": lambda: manifest_key("headers", ".tmp", SHA, "1"),
    "manifest of a long revision": lambda: manifest_key("headers", "a", "r" * 97, "1"),
    "manifest of an id with a NUL": lambda: manifest_key("headers", "a\0", SHA, "1"),
}


def sibling(**changes: Any) -> dict[str, Any]:
    return ROW | {"siblings": [{"rfilename": "a.safetensors", "size": 10} | changes]}


def must_be_little(_: Context, value: dict[str, Any]) -> None:
    """A card or config that is not sound counts as none, or loses what is not."""
    assert len(json.dumps(value)) < 100, str(value)[:200]


def cases() -> Iterator[Case]:
    yield from _row_cases()
    for name, (make, reason) in INDEXES.items():
        yield Case(
            surface="index", name=name, reason=reason, make=make,
            run=lambda _, raw: parse_index(raw, {SHARD, "pytorch_model.bin"}),
        )  # fmt: skip
    for name in PICKLES:
        yield Case(
            surface="pickle", name=name, reason="pickle_only",
            run=lambda _, __, name=name: find_weight_files([name, "config.json"]),
        )  # fmt: skip
    for name, call in KEYS.items():
        yield Case(
            surface="key", name=name, reason="unsafe_file_name", run=lambda _, __, call=call: call()
        )
    for name, make in CARDS.items():
        yield Case(
            surface="card", name=name, reason=HARMLESS, make=make,
            run=lambda ctx, raw: must_be_little(ctx, parse_front_matter(raw)),
        )  # fmt: skip
    for name, make in CONFIGS.items():
        yield Case(
            surface="config", name=name, reason=HARMLESS, make=make,
            run=lambda ctx, raw: must_be_little(ctx, parse_json_object(raw)),
        )  # fmt: skip


def _row_cases() -> Iterator[Case]:
    for name, row in ROWS.items():
        yield Case(
            surface="row", name=name, reason="malformed_row",
            run=lambda _, __, row=row: parse_listing(row),
        )  # fmt: skip
    for name, changes in DETAILS.items():
        yield Case(
            surface="detail", name=name, reason="malformed_row",
            run=lambda _, __, row=ROW | changes: parse_detail(row),
        )  # fmt: skip
    for name, changes in FILES.items():
        yield Case(
            surface="file", name=name, reason="malformed_row",
            run=lambda _, __, changes=changes: parse_detail(sibling(**changes)),
        )  # fmt: skip
    for name, path in NAMES.items():
        yield Case(
            surface="file name", name=name, reason="unsafe_file_name",
            run=lambda _, __, path=path: parse_detail(sibling(rfilename=path)),
        )  # fmt: skip
    files = [{"rfilename": "a", "size": 1}]
    yield Case(
        surface="file name", name="twice", reason="unsafe_file_name",
        run=lambda _, __: parse_detail(ROW | {"siblings": files * 2}),
    )  # fmt: skip
    yield Case(
        surface="file", name="20,001 of them", reason="too_many_files",
        run=lambda _, __: parse_detail(ROW | {"siblings": files * 20_001}),
    )  # fmt: skip
