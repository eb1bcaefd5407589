"""Hostile safetensors headers, from facts about what the official parser lets through."""

# ruff: noqa: E501 - a case per line reads as a table

import json
from collections.abc import Callable, Iterator
from typing import Any

from ws_pipeline.weights.header_pool import parse_header_apart
from ws_pipeline_tests.abuse.case import Case, Context

MIB = 2**20


def wrap(text: str | bytes, data: bytes = b"") -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes


def one(**changes: Any) -> bytes:
    return wrap(json.dumps({"w": entry(**changes)}), bytes(4))


def named(name: str) -> bytes:
    return wrap(json.dumps({name: entry()}), bytes(4))


def two(first: list[Any], second: list[Any], data: int = 8) -> bytes:
    tensors = {"a": entry(data_offsets=first), "b": entry(data_offsets=second)}
    return wrap(json.dumps(tensors), bytes(data))


def fields(text: str) -> bytes:
    return wrap('{"w":{' + text + "}}", bytes(4))


def repeat(unit: bytes, num_bytes: int, start: bytes = b"{", end: bytes = b"}") -> bytes:
    return wrap(start + unit * ((num_bytes - len(start) - len(end)) // len(unit)) + end)


def empties(count: int) -> bytes:
    tensor = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return wrap("{" + ",".join(f'"{i:x}":{tensor}' for i in range(count)) + "}")


OFFSETS = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'
BIG = 16 * MIB - 64

LITTLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "header_truncated"),
    "one byte": (b"\x01", "header_truncated"),
    "seven bytes": (b"\x01" * 7, "header_truncated"),
    "length of 2^64-1": (b"\xff" * 8 + b"{}", "header_too_large"),
    "length of 2^63": (b"\0" * 7 + b"\x80" + b"{}", "header_too_large"),
    "length one above the file": (wrap("{}")[:-1], "header_truncated"),
    "length 0": (wrap(""), "header_not_json"),
    "a pickle": (b"\x80\x04\x95" + b"\0" * 5 + b"cos\nsystem\n.", "header_truncated"),
    "a zip": (b"PK\x03\x04\x14\0\0\0" + b"model/data.pkl", "not_safetensors"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(16), "not_safetensors"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(16), "not_safetensors"),
    "leading space": (wrap(" {}"), "header_not_json"),
    "byte order mark": (wrap(b"\xef\xbb\xbf{}"), "header_not_json"),
    "UTF-16": (wrap("{}".encode("utf-16")), "header_not_json"),
    "not UTF-8": (wrap(b'{"\xff":{}}'), "header_not_json"),
    "overlong UTF-8": (wrap(b'{"\xc0\xaf":{}}'), "header_not_json"),
    "raw surrogate in UTF-8": (wrap(b'{"\xed\xa0\x80":{}}'), "header_not_json"),
    "a list": (wrap("[]"), "header_not_json"),
    "a number": (wrap("1"), "header_not_json"),
    "null": (wrap("null"), "header_not_json"),
    "a string": (wrap('"x"'), "header_not_json"),
    "two objects": (wrap("{}{}"), "header_not_json"),
    "trailing comma": (wrap('{"a":{},}'), "header_not_json"),
    "single quotes": (wrap("{'a':{}}"), "header_not_json"),
    "comment": (wrap("{/* */}"), "header_not_json"),
    "NUL inside": (wrap("{\0}"), "header_not_json"),
    "unterminated string": (wrap('{"w'), "header_not_json"),
    "NaN literal": (fields('"dtype":"F32","shape":[NaN],"data_offsets":[0,4]'), "header_not_json"),
    "Infinity literal": (fields('"shape":[Infinity]'), "header_not_json"),
    "minus Infinity": (fields('"shape":[-Infinity]'), "header_not_json"),
    "a fraction": (fields('"dtype":"F32","shape":[1.0],"data_offsets":[0,4]'), "header_not_json"),
    "an exponent": (fields('"dtype":"F32","shape":[1e9],"data_offsets":[0,4]'), "header_not_json"),
    "minus zero": (fields('"dtype":"F32","shape":[1],"data_offsets":[-0,4]'), "header_not_json"),
    "5000 digits": (fields('"shape":[' + "9" * 5000 + "]"), "header_not_json"),
    "21 digits": (fields('"shape":[' + "9" * 21 + "]"), "header_not_json"),
    "126 deep": (wrap("[" * 126 + "]" * 126), "header_not_json"),
    "126 deep in an object": (wrap('{"a":' + "[" * 126 + "]" * 126 + "}"), "header_invalid"),
    "duplicate tensor": (
        wrap('{"w":{' + OFFSETS + '},"w":{' + OFFSETS + "}}", bytes(4)), "header_duplicate_name"),
    "duplicate by escape": (
        wrap('{"w":{' + OFFSETS + '},"\\u0077":{' + OFFSETS + "}}", bytes(4)),
        "header_duplicate_name"),
    "duplicate field": (fields('"dtype":"F32",' + OFFSETS), "header_duplicate_name"),
    "duplicate metadata": (
        wrap('{"__metadata__":{},"__metadata__":{}}'), "header_duplicate_name"),
    "duplicate metadata key": (
        wrap('{"__metadata__":{"a":"1","a":"2"}}'), "header_duplicate_name"),
    "metadata is a list": (wrap('{"__metadata__":[]}'), "header_invalid"),
    "metadata is null": (wrap('{"__metadata__":null}'), "header_invalid"),
    "metadata holds a number": (wrap('{"__metadata__":{"a":1}}'), "header_invalid"),
    "metadata holds an object": (wrap('{"__metadata__":{"a":{}}}'), "header_invalid"),
    "metadata with a lone surrogate": (wrap('{"__metadata__":{"a":"\\ud800"}}'), "header_invalid"),
    "extra field": (one(code="import os"), "header_invalid"),
    "missing field": (fields('"dtype":"F32","shape":[1]'), "header_invalid"),
    "tensor is a number": (wrap('{"w":1}'), "header_invalid"),
    "tensor is null": (wrap('{"w":null}'), "header_invalid"),
    "empty name": (named(""), "header_bad_name"),
    "NUL in a name": (named("a\0b"), "header_bad_name"),
    "newline in a name": (named("a\nb"), "header_bad_name"),
    "escape sequence in a name": (named("\x1b[2Jw"), "header_bad_name"),
    "right-to-left override": (named("a\u202eb"), "header_bad_name"),
    "zero-width name": (named("\u200b"), "header_bad_name"),
    "lone surrogate in a name": (wrap('{"\\ud800":{' + OFFSETS + "}}", bytes(4)), "header_bad_name"),
    "name that climbs": (named("../../etc/passwd"), "header_bad_name"),
    "name that climbs by backslash": (named("..\\..\\x"), "header_bad_name"),
    "name of 513 bytes": (named("n" * 513), "header_bad_name"),
    "name of 300 two-byte letters": (named("é" * 300), "header_bad_name"),
    "unknown type": (one(dtype="Q7"), "header_bad_dtype"),
    "lower-case type": (one(dtype="f32"), "header_bad_dtype"),
    "type is a list": (one(dtype=["F32"]), "header_bad_dtype"),
    "type is null": (one(dtype=None), "header_bad_dtype"),
    "shape is a string": (one(shape="xx"), "header_bad_shape"),
    "shape is null": (one(shape=None), "header_bad_shape"),
    "shape holds a string": (one(shape=["1"]), "header_bad_shape"),
    "shape holds true": (one(shape=[True]), "header_bad_shape"),
    "shape holds null": (one(shape=[None]), "header_bad_shape"),
    "negative shape": (one(shape=[-1]), "header_bad_shape"),
    "two negatives": (one(shape=[-1, -1]), "header_bad_shape"),
    "[0, 2^64-1]": (one(shape=[0, 2**64 - 1], data_offsets=[0, 0]), "header_bad_shape"),
    "product of 2^64": (one(shape=[2**32, 2**32]), "header_bad_offsets"),
    "product of 2^320": (one(shape=[2**40] * 8), "header_bad_offsets"),
    "rank 9": (one(shape=[1] * 9), "header_bad_shape"),
    "rank 100,000": (one(shape=[1] * 100_000), "header_invalid"),
    "offsets is null": (one(data_offsets=None), "header_bad_offsets"),
    "one offset": (one(data_offsets=[0]), "header_bad_offsets"),
    "three offsets": (one(data_offsets=[0, 4, 8]), "header_bad_offsets"),
    "offsets reversed": (one(data_offsets=[4, 0]), "header_bad_offsets"),
    "negative offset": (one(data_offsets=[-4, 0]), "header_bad_offsets"),
    "offset true": (one(data_offsets=[False, 4]), "header_bad_offsets"),
    "offset of 2^64": (one(data_offsets=[2**64 - 5, 2**64 - 1]), "header_bad_offsets"),
    "size does not match": (one(shape=[2]), "header_bad_offsets"),
    "beyond the file": (one(shape=[1000], data_offsets=[0, 4000]), "header_bad_offsets"),
    "overlap": (two([0, 4], [2, 6], 6), "header_bad_offsets"),
    "the same bytes twice": (two([0, 4], [0, 4], 4), "header_bad_offsets"),
    "hole": (two([0, 4], [8, 12], 12), "header_bad_offsets"),
    "hole before the first": (two([4, 8], [8, 12], 12), "header_bad_offsets"),
    "trailing bytes": (two([0, 4], [4, 8], 9), "header_bad_offsets"),
    "polyglot: a zip behind": (
        wrap(json.dumps({"w": entry()}), bytes(4) + b"PK\x05\x06" + bytes(18)),
        "header_bad_offsets"),
    "no tensor but data": (wrap("{}", bytes(4)), "header_bad_offsets"),
    "half a byte": (
        wrap(json.dumps({"w": entry(dtype="F4", shape=[3], data_offsets=[0, 1])}), b"\0"),
        "header_bad_offsets"),
}  # fmt: skip

LARGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "one byte above the cap": (lambda: repeat(b" ", 16 * MIB + 1), "header_too_large"),
    "92 MB of empty tensors": (lambda: empties(1_650_000), "header_too_large"),
    "16 MB of empty tensors": (lambda: empties(300_000), "header_too_many_tensors"),
    "16 MB of empty objects": (
        lambda: repeat(b'"":{},', BIG, b"{", b'"a":{}}'), "header_too_many_tensors"),
    "16 MB of metadata keys": (
        lambda: repeat(b'"":"",', BIG, b'{"__metadata__":{', b'"a":""}}'), "header_invalid"),
    "16 MB of rank": (lambda: repeat(b"1,", BIG, b'{"w":{"shape":[', b"1]}}"), "header_invalid"),
    "16 MB of empty strings": (lambda: repeat(b'"",', BIG, b'{"w":[', b'""]}'), "header_invalid"),
    "16 MB of open brackets": (lambda: repeat(b"[", BIG, b'{"w":', b""), "header_invalid"),
    "16 MB of open braces": (lambda: repeat(b'{"":', BIG, b"{", b""), "header_invalid"),
    "16 MB of closing brackets": (lambda: repeat(b"]", BIG), "header_not_json"),
    "16 MB of spaces and no end": (lambda: repeat(b" ", BIG, b"{", b""), "header_not_json"),
    "16 MB of one digit string": (lambda: repeat(b"9", BIG, b'{"w":', b"}"), "header_not_json"),
    "16 MB of zeros after minus": (lambda: repeat(b"-0,", BIG, b'{"w":[', b"0]}"), "header_invalid"),
    "16 MB of quotes": (lambda: repeat(b'"', BIG), "header_not_json"),
    "16 MB of escaped quotes": (lambda: repeat(b'\\"', BIG, b'{"', b""), "header_not_json"),
    "16 MB of backslashes": (lambda: repeat(b"\\", BIG, b'{"', b""), "header_not_json"),
    "16 MB of commas": (lambda: repeat(b",", BIG), "header_invalid"),
    "16 MB of colons": (lambda: repeat(b":", BIG), "header_invalid"),
    "a name of 16 MB": (
        lambda: repeat(b"n", BIG, b'{"', b'":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
        "header_bad_name"),
    "a name of 16 MB in escapes": (
        lambda: repeat(b"\\u00e9", BIG, b'{"', b'":{}}'), "header_bad_name"),
    "a type of 16 MB": (
        lambda: repeat(b"F", BIG, b'{"w":{"shape":[0],"data_offsets":[0,0],"dtype":"', b'"}}'),
        "header_bad_dtype"),
    "metadata of 16 MB in wide letters": (
        lambda: repeat(b"x", BIG, b'{"__metadata__":{"a":"\xf0\x9f\x98\x80', b'"},"w":1}'),
        "header_invalid"),
    "10,001 metadata entries": (
        lambda: wrap(json.dumps({"__metadata__": {str(i): "" for i in range(10_001)}})),
        "header_invalid"),
    "the last of 190,000 tensors is bad": (
        lambda: empties(190_000).replace(b'"2e62f"', b'"w\\nxx"'), "header_bad_name"),
}  # fmt: skip


def parse(_: Context, raw: bytes) -> object:
    return parse_header_apart(raw, len(raw))


def cases() -> Iterator[Case]:
    for name, (raw, reason) in LITTLE.items():
        yield Case(surface="header", name=name, reason=reason, make=lambda raw=raw: raw, run=parse)
    for name, (make, reason) in LARGE.items():
        yield Case(surface="header", name=name, reason=reason, make=make, run=parse)
