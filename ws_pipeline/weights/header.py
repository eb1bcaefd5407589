"""A hardened parser of safetensors headers: bytes to a checked :class:`Header`. Pure, no I/O.

The official library accepts duplicate tensor names (the last wins), names with NUL, newline or
``..``, ranks of 100,000 and 92 MB of empty tensors. A crawler reads headers of strangers, so this
parser keeps the format's own rules and bounds of its own, and names a reason for each refusal.

Layout: 8 bytes little-endian header length, that many bytes of JSON, then the tensors' bytes, which
must cover the rest of the file exactly, in one piece each, without hole or overlap.
Source: https://github.com/huggingface/safetensors#format.
"""

from math import prod
from typing import Any, NoReturn

from ws_pipeline.bounded_json import (
    BoundedJsonError,
    DuplicateKeyError,
    JsonStructure,
    parse_measured,
    walk_structure,
)
from ws_pipeline.errors import HeaderError, Reason
from ws_pipeline.weights.dtypes import ELEMENT_TYPES
from ws_pipeline.weights.header_format import (
    DEFAULT_LIMITS,
    LENGTH_BYTES,
    MAX_DEPTH,
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    MAX_RANK,
    MAX_TENSORS,
    METADATA_KEY,
    Header,
    HeaderLimits,
    TensorInfo,
    name_foreign_format,
)

__all__ = [
    "DEFAULT_LIMITS",
    "LENGTH_BYTES",
    "MAX_HEADER_BYTES",
    "MAX_NAME_BYTES",
    "MAX_RANK",
    "MAX_TENSORS",
    "Header",
    "HeaderLimits",
    "TensorInfo",
    "parse_header",
    "parse_header_record",
    "read_header_bytes",
]

_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


def read_header_bytes(raw: bytes, *, file_bytes: int, limits: HeaderLimits = DEFAULT_LIMITS) -> int:
    """Return how many bytes from the file's start hold the whole header, from its first 8 bytes.

    Raises:
        HeaderError: The file is too short for what it claims, the header is above the cap, or the
            file is one of another known format.
    """
    if file_bytes < LENGTH_BYTES or len(raw) < LENGTH_BYTES:
        _refuse(
            Reason.HEADER_TRUNCATED,
            f"a file starts with 8 length bytes, this one has {min(file_bytes, len(raw))}",
        )
    json_bytes = int.from_bytes(raw[:LENGTH_BYTES], "little")
    if json_bytes > limits.max_header_bytes:
        foreign = name_foreign_format(raw)
        if foreign:
            _refuse(Reason.NOT_SAFETENSORS, f"this is {foreign}")
        _refuse(
            Reason.HEADER_TOO_LARGE,
            f"the header may have {limits.max_header_bytes} bytes, it claims {json_bytes}",
        )
    if LENGTH_BYTES + json_bytes > file_bytes:
        _refuse(
            Reason.HEADER_TRUNCATED,
            f"the header claims {json_bytes} bytes, the whole file has {file_bytes}",
        )
    return LENGTH_BYTES + json_bytes


def parse_header(raw: bytes, *, file_bytes: int, limits: HeaderLimits = DEFAULT_LIMITS) -> Header:
    """Parse and check the header at the start of ``raw``.

    Args:
        raw: The file's first bytes, at least the whole header; more is ignored.
        file_bytes: Size of the whole file, against which the tensors' extent is checked.
        limits: Caps.

    Raises:
        HeaderError: With the ``HEADER_*`` reason of the first rule that is broken.
    """
    header_bytes = read_header_bytes(raw, file_bytes=file_bytes, limits=limits)
    if len(raw) < header_bytes:
        _refuse(
            Reason.HEADER_TRUNCATED,
            f"the header has {header_bytes} bytes, {len(raw)} of them were given",
        )
    entries = _load_entries(raw[LENGTH_BYTES:header_bytes], limits)
    metadata = _check_metadata(entries.pop(METADATA_KEY, {}), limits)
    # Entries go as tensors come: 200,000 of both are 60 MB more.
    tensors = [_check_tensor(name, entries.pop(name), limits) for name in list(entries)]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    data_bytes = file_bytes - header_bytes
    _check_coverage(tensors, data_bytes)
    return Header(
        tensors=tuple(tensors),
        metadata=metadata,
        header_bytes=header_bytes,
        data_bytes=data_bytes,
    )


def parse_header_record(raw: bytes, file_bytes: int) -> dict[str, Any]:
    """Parse a header into a JSON-able record, as triage stores it.

    Returns:
        ``header_bytes``, ``num_bytes`` (of data), ``metadata`` and ``tensors``, a list of dicts
        with ``name, dtype, shape, num_params, num_bytes, start, end``.
    """
    header = parse_header(raw, file_bytes=file_bytes)
    tensors = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "num_params": tensor.num_params,
            "num_bytes": tensor.num_bytes,
            "start": tensor.start,
            "end": tensor.end,
        }
        for tensor in header.tensors
    ]
    return {
        "header_bytes": header.header_bytes,
        "num_bytes": header.data_bytes,
        "metadata": dict(header.metadata),
        "tensors": tensors,
    }


def _load_entries(raw: bytes, limits: HeaderLimits) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        _refuse(Reason.HEADER_NOT_JSON, f"the header must begin with '{{', it begins {raw[:8]!r}")
    for structure in walk_structure(raw):
        _check_structure(structure, limits)
    try:
        entries = parse_measured(raw, parse_float=_refuse_float, parse_int=_parse_int)
    except DuplicateKeyError as error:
        _refuse(Reason.HEADER_DUPLICATE_NAME, str(error))
    except BoundedJsonError as error:
        _refuse(Reason.HEADER_NOT_JSON, f"the header is {error}")
    if not isinstance(entries, dict):
        _refuse(Reason.HEADER_NOT_JSON, f"the header must be an object, it is {type(entries)}")
    return entries


def _check_structure(structure: JsonStructure, limits: HeaderLimits) -> None:
    """Bound what the parser is about to build; holds for every beginning of a good header."""
    if structure.depth > MAX_DEPTH:
        _refuse(
            Reason.HEADER_INVALID, f"the header may nest {MAX_DEPTH} deep, it is {structure.depth}"
        )
    if structure.has_long_number:
        _refuse(Reason.HEADER_NOT_JSON, "the header holds a number of more than 20 digits")
    num_tensors = structure.num_objects - 1
    if num_tensors > limits.max_tensors + 1:  # one object may be the metadata
        _refuse(
            Reason.HEADER_TOO_MANY_TENSORS,
            f"a file may hold {limits.max_tensors} tensors, this one has {num_tensors} or more",
        )
    # Per tensor at most its name and three fields, a shape of max_rank and two offsets.
    max_colons = 4 * structure.num_objects + limits.max_metadata_entries
    max_commas = (limits.max_rank + 4) * structure.num_objects + limits.max_metadata_entries
    if structure.num_colons > max_colons or structure.num_commas > max_commas:
        _refuse(
            Reason.HEADER_INVALID,
            f"{num_tensors} tensors cannot need {structure.num_colons} fields "
            f"and {structure.num_commas} commas",
        )


def _check_metadata(metadata: Any, limits: HeaderLimits) -> dict[str, str]:
    if not isinstance(metadata, dict) or len(metadata) > limits.max_metadata_entries:
        _refuse(
            Reason.HEADER_INVALID,
            f"__metadata__ must be an object of at most {limits.max_metadata_entries} entries",
        )
    for key, value in metadata.items():
        if not isinstance(value, str) or not _is_encodable(key) or not _is_encodable(value):
            _refuse(Reason.HEADER_INVALID, f"__metadata__[{key[:80]!r}] must be a valid string")
    return metadata


def _check_tensor(name: str, entry: Any, limits: HeaderLimits) -> TensorInfo:
    _check_name(name, limits)
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        _refuse(Reason.HEADER_INVALID, f"{name!r} must have exactly dtype, shape, data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in ELEMENT_TYPES:
        _refuse(Reason.HEADER_BAD_DTYPE, f"{name!r} has the unknown dtype {str(dtype)[:40]!r}")
    shape = _check_shape(name, entry["shape"], limits)
    num_params = prod(shape)
    num_bits = num_params * ELEMENT_TYPES[dtype].bits
    start, end = _check_offsets(name, entry["data_offsets"])
    if num_bits % 8 or end - start != num_bits // 8:
        _refuse(
            Reason.HEADER_BAD_OFFSETS,
            f"{name!r} of {num_params} {dtype} needs {num_bits} bits, its offsets give "
            f"{end - start} bytes",
        )
    return TensorInfo(
        name=name,
        dtype=dtype,
        shape=shape,
        start=start,
        end=end,
        num_params=num_params,
        num_bytes=end - start,
    )


def _check_name(name: str, limits: HeaderLimits) -> None:
    if not name or not name.isprintable() or not _is_encodable(name):
        _refuse(
            Reason.HEADER_BAD_NAME,
            f"a tensor name must be printable and not empty, one is {name[:80]!r}",
        )
    if ".." in name.replace("\\", "/").split("/"):
        _refuse(
            Reason.HEADER_BAD_NAME, f"a tensor name must have no part '..', one is {name[:80]!r}"
        )
    if len(name.encode("utf-8")) > limits.max_name_bytes:
        _refuse(
            Reason.HEADER_BAD_NAME,
            f"a tensor name may have {limits.max_name_bytes} bytes, one begins {name[:80]!r}",
        )


def _check_shape(name: str, shape: Any, limits: HeaderLimits) -> tuple[int, ...]:
    if not isinstance(shape, list) or any(type(dim) is not int for dim in shape):
        _refuse(Reason.HEADER_BAD_SHAPE, f"the shape of {name!r} must be a list of integers")
    if len(shape) > limits.max_rank:
        _refuse(
            Reason.HEADER_BAD_SHAPE,
            f"{name!r} may have {limits.max_rank} axes, it has {len(shape)}",
        )
    if any(dim < 0 or dim > limits.max_dim for dim in shape):
        _refuse(
            Reason.HEADER_BAD_SHAPE,
            f"every axis of {name!r} must be within [0, {limits.max_dim}], they are {shape}",
        )
    return tuple(shape)


def _check_offsets(name: str, offsets: Any) -> tuple[int, int]:
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or any(type(offset) is not int for offset in offsets)
    ):
        _refuse(Reason.HEADER_BAD_OFFSETS, f"data_offsets of {name!r} must be two integers")
    start, end = offsets
    if not 0 <= start <= end:
        _refuse(Reason.HEADER_BAD_OFFSETS, f"data_offsets of {name!r} must ascend, are {offsets}")
    return start, end


def _check_coverage(tensors: list[TensorInfo], data_bytes: int) -> None:
    """Require that the tensors, in order of their start, tile the data exactly."""
    position = 0
    for tensor in tensors:
        if tensor.start != position:
            what = "overlaps the tensor before it" if tensor.start < position else "leaves a hole"
            _refuse(
                Reason.HEADER_BAD_OFFSETS,
                f"{tensor.name!r} {what}: it starts at {tensor.start}, {position} was due",
            )
        position = tensor.end
    if position != data_bytes:
        hint = "; it was cut off, fetch it again" if position > data_bytes else ""
        _refuse(
            Reason.HEADER_BAD_OFFSETS,
            f"the tensors end at byte {position}, the file's data at {data_bytes}{hint}",
        )


def _is_encodable(text: str) -> bool:
    # JSON can spell lone surrogates, which no UTF-8 file can hold.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _parse_int(literal: str) -> int:
    if literal == "-0":  # a fraction to the official parser, which refuses it; found by fuzzing
        raise BoundedJsonError("not a header: it holds the number -0")
    return int(literal)


def _refuse_float(literal: str) -> NoReturn:
    raise BoundedJsonError(f"not a header: it holds the fraction {literal[:40]}")


def _refuse(reason: Reason, message: str) -> NoReturn:
    raise HeaderError(message, reason=reason)
