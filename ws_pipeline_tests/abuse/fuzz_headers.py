"""A coverage-guided fuzzer of the header and index parsers; run by hand, not by pytest.

    python -m ws_pipeline_tests.abuse.fuzz_headers (header|index) [libFuzzer options]

needs atheris (``pip install atheris``, kept out of the project's requirements). Every input has to
end in a refusal of the parser's own, or in an answer that keeps the parser's promises; a header
that is accepted must be one that the official library accepts too, with the same tensors.
"""

import json
import sys
from pathlib import Path
from tempfile import mkdtemp

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["ws_pipeline", "json"]):
    from ws_pipeline.bounded_json import measure_structure
    from ws_pipeline.errors import HeaderError, Reason, RefusedError
    from ws_pipeline.hub.listing import is_file_name
    from ws_pipeline.hub.weight_files import parse_index
    from ws_pipeline.weights.header import MAX_RANK, parse_header_record

from safetensors import deserialize

from ws_pipeline_tests.abuse.headers import LITTLE, entry, one, two, wrap
from ws_pipeline_tests.abuse.repos import INDEXES, SHARD, weight_map

MAX_SEED_BYTES = 4096
INDEX_REASONS = {Reason.INVALID_INDEX, Reason.UNSAFE_FILE_NAME}
GOOD = (
    wrap("{}"),
    one(),
    two([0, 4], [4, 8]),
    wrap(json.dumps({"__metadata__": {"format": "pt"}, "w": entry()}), bytes(4)),
    wrap(json.dumps({"q": entry(dtype="F4", shape=[4], data_offsets=[0, 2])}), bytes(2)),
    wrap(json.dumps({"e": entry(shape=[0, 3], data_offsets=[0, 0]), "w": entry()}), bytes(4)),
)
TOKENS = (
    *('{"', '":', '",', "[", "]", "{", "}", "\\u", "\\ud800", "..", "/", "\\\\", "\\n", "NaN"),
    *("__metadata__", "dtype", "shape", "data_offsets", "F32", "BF16", "F4", "U8", "weight_map"),
    *("-1", "[0,4]", "[4,8]", "18446744073709551615", "1e9", SHARD),
)  # fmt: skip


def try_header(data: bytes) -> None:
    """Two bytes say how many bytes of tensors follow; the rest is the header's text."""
    num_data_bytes, text = int.from_bytes(data[:2], "little") % 64, data[2:]
    raw = len(text).to_bytes(8, "little") + text + bytes(num_data_bytes)
    try:
        record = parse_header_record(raw, len(raw))
    except HeaderError as error:
        assert str(error.reason).startswith("header_"), error  # noqa: PT017
        return
    position = 0
    for tensor in record["tensors"]:
        assert tensor["start"] == position
        assert len(tensor["shape"]) <= MAX_RANK
        assert tensor["name"].isprintable()
        position = tensor["end"]
    assert position == num_data_bytes
    official = {name: tuple(info["shape"]) for name, info in deserialize(raw)}
    assert official == {t["name"]: tuple(t["shape"]) for t in record["tensors"]}


def try_index(data: bytes) -> None:
    names = {SHARD, "a.safetensors", "b/c.safetensors", "pytorch_model.bin"}
    assert measure_structure(data).num_values >= 1
    try:
        weight_map = parse_index(data, names)
    except RefusedError as error:
        assert error.reason in INDEX_REASONS, error  # noqa: PT017
        return
    assert weight_map
    assert all(is_file_name(path) and path in names for path in weight_map.values())


def to_seed(raw: bytes) -> bytes:
    num_bytes = int.from_bytes(raw[:8], "little")
    text, data = raw[8:][:num_bytes], raw[8:][num_bytes:]
    return len(data).to_bytes(2, "little") + text


def main() -> None:
    what = sys.argv.pop(1)
    folder = Path(mkdtemp(prefix="fuzz-"))
    seeds = folder / "seeds"
    seeds.mkdir()
    if what == "header":
        made = [to_seed(raw) for raw in [*GOOD, *(raw for raw, _ in LITTLE.values())]]
    else:
        made = [weight_map({"w": SHARD}), weight_map({"a": SHARD, "b": "b/c.safetensors"})]
        made += [make() for name, (make, _) in INDEXES.items() if " MB" not in name]
    for number, seed in enumerate(made):
        (seeds / str(number)).write_bytes(seed[:MAX_SEED_BYTES])
    words = [word.replace("\\", "\\\\").replace('"', '\\"') for word in TOKENS]
    (folder / "words").write_text("\n".join(f'"{word}"' for word in words))
    options = [*sys.argv, f"-dict={folder / 'words'}", "-max_len=2048", str(seeds)]
    atheris.Setup(options, {"header": try_header, "index": try_index}[what])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
