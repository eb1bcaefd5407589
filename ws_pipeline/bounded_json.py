"""JSON from strangers, parsed under bounds that hold before the parser runs. No I/O.

``json.loads`` alone recurses as deep as the input says, converts integers of any length, accepts
NaN and keeps the last of two equal keys. Here the structure is measured first by one regular
expression and a cumulative sum, both linear in the input, and duplicates are an error.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

_STRING_PATTERN = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
"""A whole JSON string, possessive so that no input makes it back-track; an unterminated one runs to
the end, else every further quote of it would start another scan of the rest."""
_STRING = re.compile(_STRING_PATTERN, re.DOTALL)

_PIECE = re.compile(rb'(?:[^"]{1,128}+|' + _STRING_PATTERN + rb"){1,2048}+", re.DOTALL)
"""The next stretch that ends outside a string. Measured piece by piece, 16 MB of brackets take 7 MB
of memory; at once they took 340, and 16 MB of empty strings 950."""

MAX_VALUES = 2_000_000
"""A value takes 8 to 90 bytes of memory: enough for every honest file, at most about 200 MB."""

_LONG_NUMBER = re.compile(rb"[0-9]{21}")
"""2**64 has 20 digits; no integer that means anything here is longer."""
_LONG_NUMBER_DIGITS = 21

_OPEN, _CLOSE, _COMMA, _COLON = (np.zeros(256, dtype=np.bool_) for _ in range(4))
_OPEN[list(b"{[")] = _CLOSE[list(b"}]")] = _COMMA[list(b",")] = _COLON[list(b":")] = True


class BoundedJsonError(ValueError):
    """The bytes are not JSON, or break a bound."""


class DuplicateKeyError(BoundedJsonError):
    """One object names a key twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonStructure:
    """How much structure a JSON text claims to have, counted outside its strings."""

    depth: int
    num_objects: int
    num_containers: int
    num_colons: int
    num_commas: int
    has_long_number: bool

    @property
    def num_values(self) -> int:
        """An upper bound of the values and keys that a parser will build."""
        return 1 + self.num_containers + self.num_colons + self.num_commas


_NO_STRUCTURE = JsonStructure(
    depth=0, num_objects=0, num_containers=0, num_colons=0, num_commas=0, has_long_number=False
)


def measure_structure(raw: bytes) -> JsonStructure:
    """Count brackets, colons and commas without parsing; linear in time, constant in memory."""
    structure = _NO_STRUCTURE
    for structure in walk_structure(raw):  # noqa: B007 - the last one counts
        pass
    return structure


def walk_structure(raw: bytes) -> Iterator[JsonStructure]:
    """Yield what was counted so far, every few kilobytes, so that a caller can stop early."""
    depth = level = num_objects = num_containers = num_colons = num_commas = 0
    has_long_number, tail, position = False, b"", 0
    while (piece := _PIECE.match(raw, position)) is not None:
        position = piece.end()
        text = _STRING.sub(b"", piece.group())
        skeleton = np.frombuffer(text, dtype=np.uint8)
        opened = _OPEN[skeleton]
        steps = opened.astype(np.int8) - _CLOSE[skeleton].astype(np.int8)
        levels = np.cumsum(steps, dtype=np.int64)
        depth = max(depth, level + int(levels.max(initial=0)))
        level += int(levels[-1]) if levels.size else 0
        num_containers += int(np.count_nonzero(opened))
        num_objects += text.count(b"{")
        num_colons += text.count(b":")
        num_commas += text.count(b",")
        tail += text
        has_long_number = has_long_number or _LONG_NUMBER.search(tail) is not None
        tail = tail[1 - _LONG_NUMBER_DIGITS :]
        yield JsonStructure(
            depth=depth,
            num_objects=num_objects,
            num_containers=num_containers,
            num_colons=num_colons,
            num_commas=num_commas,
            has_long_number=has_long_number,
        )


def check_structure(
    raw: bytes, *, max_bytes: int, max_depth: int, max_values: int
) -> JsonStructure:
    """Require that parsing ``raw`` cannot build more than stated, before anything parses it.

    Raises:
        BoundedJsonError: A bound is broken; the message says which.
    """
    if len(raw) > max_bytes:
        raise BoundedJsonError(f"JSON must have at most {max_bytes} bytes, it has {len(raw)}")
    structure = _NO_STRUCTURE
    for structure in walk_structure(raw):
        if structure.depth > max_depth:
            raise BoundedJsonError(
                f"JSON may be nested {max_depth} deep, it is {structure.depth} deep or more"
            )
        if structure.num_values > max_values:
            raise BoundedJsonError(
                f"JSON may hold {max_values} values, it holds up to {structure.num_values} or more"
            )
    return structure


def load_json(
    raw: bytes,
    *,
    max_bytes: int,
    max_depth: int,
    max_values: int = MAX_VALUES,
    parse_float: Callable[[str], Any] = float,
) -> Any:
    """Parse UTF-8 JSON under bounds; no duplicate keys, NaN or huge integers.

    Raises:
        DuplicateKeyError: An object names a key twice.
        BoundedJsonError: Any other breach; the message says which.
    """
    structure = check_structure(
        raw, max_bytes=max_bytes, max_depth=max_depth, max_values=max_values
    )
    if structure.has_long_number:
        raise BoundedJsonError("JSON holds a number of more than 20 digits")
    return parse_measured(raw, parse_float=parse_float)


def parse_measured(
    raw: bytes,
    *,
    parse_float: Callable[[str], Any] = float,
    parse_int: Callable[[str], Any] = int,
) -> Any:
    """Parse JSON whose structure the caller has measured and found within its own bounds.

    Raises:
        DuplicateKeyError: An object names a key twice.
        BoundedJsonError: It is no UTF-8 JSON, or holds NaN or an infinity.
    """
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_pairs,
            parse_constant=_refuse_constant,
            parse_float=parse_float,
            parse_int=parse_int,
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
