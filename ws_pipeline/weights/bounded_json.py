"""JSON from strangers, parsed under bounds that hold before the parser runs. No I/O.

``json.loads`` alone recurses as deep as the input says, converts integers of any length, accepts
NaN and keeps the last of two equal keys. Here the structure is measured first by one regular
expression and a cumulative sum, both linear in the input, and duplicates are an error.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

# A whole JSON string, possessive so that no input makes it back-track; an unterminated one runs to
# the end, else every further quote of it would start another scan of the rest.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
# 2**64 has 20 digits; no integer that means anything here is longer.
_LONG_NUMBER = re.compile(rb"[0-9]{21}")


class BoundedJsonError(ValueError):
    """The bytes are not JSON, or break a bound."""


class DuplicateKeyError(BoundedJsonError):
    """One object names a key twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonStructure:
    """How much structure a JSON text claims to have, counted outside its strings."""

    depth: int
    num_objects: int
    num_colons: int
    num_commas: int


def measure_structure(raw: bytes) -> JsonStructure:
    """Count brackets, colons and commas without parsing; linear in time and memory."""
    skeleton = np.frombuffer(_STRING.sub(b"", raw), dtype=np.uint8)
    opened = (skeleton == ord("{")) | (skeleton == ord("["))
    closed = (skeleton == ord("}")) | (skeleton == ord("]"))
    steps = opened.astype(np.int8) - closed.astype(np.int8)
    depth = int(np.cumsum(steps, dtype=np.int64).max(initial=0))
    return JsonStructure(
        depth=depth,
        num_objects=int(np.count_nonzero(skeleton == ord("{"))),
        num_colons=int(np.count_nonzero(skeleton == ord(":"))),
        num_commas=int(np.count_nonzero(skeleton == ord(","))),
    )


def load_json(
    raw: bytes, *, max_bytes: int, max_depth: int, parse_float: Callable[[str], Any] = float
) -> Any:
    """Parse UTF-8 JSON under a size and a depth bound; no duplicate keys, NaN or huge integers.

    Raises:
        DuplicateKeyError: An object names a key twice.
        BoundedJsonError: Any other breach; the message says which.
    """
    if len(raw) > max_bytes:
        raise BoundedJsonError(f"JSON must have at most {max_bytes} bytes, it has {len(raw)}")
    depth = measure_structure(raw).depth
    if depth > max_depth:
        raise BoundedJsonError(f"JSON may be nested {max_depth} deep, it is {depth} deep")
    if _LONG_NUMBER.search(_STRING.sub(b"", raw)) is not None:
        raise BoundedJsonError("JSON holds a number of more than 20 digits")
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_pairs,
            parse_constant=_refuse_constant,
            parse_float=parse_float,
        )
    except BoundedJsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise BoundedJsonError(f"not valid JSON: {_first_line(error)}") from error


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(f"the key {key[:80]!r} appears twice in one object")
            seen.add(key)
    return unique


def _refuse_constant(constant: str) -> NoReturn:
    raise BoundedJsonError(f"JSON has no number {constant}")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
