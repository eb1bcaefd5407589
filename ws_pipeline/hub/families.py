"""Which family a repo belongs to, as data. No I/O.

A family is the unit of work and the partition of the asset graph: repos whose models share a type,
so that one family's tables stay readable and a few hundred families cover a hub. A rule reads one
value out of a listing row and says which tag asks the hub for such rows. The first rule that finds
a value decides. What it is not: an opinion about any single family; there is no branch on a name.

A family's name is ``<prefix><value>`` with a reversible quoting, so the tag follows from the name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ws_pipeline.errors import ConfigError

MAX_FAMILY_BYTES = 96
"""A partition key and a table's file name; longer values go to the rule's catch-all family."""

EVERYTHING_ELSE = "other"
"""The value of a rule's catch-all family."""

_PLAIN = re.compile(r"[A-Za-z0-9._-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyRule:
    """How to tell a kind of family, and how to ask the hub for one.

    Args:
        prefix: Put before the value; ends in ``+`` or is empty.
        library: Rows of this library only (its ``library_name`` or one of its tags); "" for all.
        path: Where the value stands in the row, as keys.
        stem: What of the value counts: the first match of this pattern; "" for all of it.
        tag: The listing's filter, with ``{value}``; "" asks for every repo.
    """

    prefix: str
    library: str
    path: tuple[str, ...]
    stem: str = ""
    tag: str

    def find_value(self, item: Mapping[str, Any]) -> str | None:
        """Return the value, EVERYTHING_ELSE if only the library fits, None if the rule does not."""
        if self.library and not _is_of_library(item, self.library):
            return None
        value: Any = item
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and self.stem:
            match = re.match(self.stem, value.lower())
            value = match.group() if match else None
        if isinstance(value, str) and value and value.isprintable():
            return value
        return EVERYTHING_ELSE if self.library else None


RULES: tuple[FamilyRule, ...] = (
    FamilyRule(prefix="peft+", library="peft", path=("config", "peft", "task_type"), tag="peft"),
    FamilyRule(
        prefix="diffusers+", library="diffusers", path=("config", "diffusers", "_class_name"),
        tag="diffusers:{value}",
    ),
    FamilyRule(
        # "vit_base_patch16_224.augreg" and a thousand like it are one family, "timm+vit".
        prefix="timm+", library="timm", path=("config", "architecture"), stem=r"[a-z]+", tag="timm",
    ),
    FamilyRule(prefix="", library="", path=("config", "model_type"), tag="{value}"),
    FamilyRule(prefix="architecture+", library="", path=("config", "architectures"), tag=""),
    FamilyRule(prefix="library+", library="", path=("library_name",), tag="{value}"),
)  # fmt: skip
"""In order of precedence: an adapter of a BERT is an adapter, a diffusers repo is no model type."""


def family_of(item: object) -> str:
    """Return the family of a listing row: letters, digits and ``._=+-``, at most 96 characters.

    A row that fits no rule, or that is no object at all, is of the family ``other``.
    """
    if not isinstance(item, Mapping):
        return EVERYTHING_ELSE
    for rule in RULES:
        value = rule.find_value(item)
        if value is not None:
            family = rule.prefix + _quote(value)
            return family if len(family) <= MAX_FAMILY_BYTES else rule.prefix + EVERYTHING_ELSE
    return EVERYTHING_ELSE


def tags_of(family: str) -> tuple[str, ...]:
    """Return the listing filter that yields at least the family's repos; () asks for all of them.

    Raises:
        ConfigError: If no rule makes such a name.
    """
    check_family(family)
    head, plus, tail = family.partition("+")
    for rule in RULES:
        if rule.prefix == (head + plus if plus else ""):
            value = _unquote(tail if plus else head)
            if value == EVERYTHING_ELSE:
                return (rule.library,) if rule.library else ()
            return (rule.tag.format(value=value),) if rule.tag else ()
    known = ", ".join(rule.prefix for rule in RULES if rule.prefix)
    raise ConfigError(f"A family is a model type or starts with one of {known}; got {family!r}.")


def check_family(family: str) -> str:
    """Return ``family`` if its characters and length are those of a family's name.

    Raises:
        ConfigError: Otherwise.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,95}", family):
        raise ConfigError(
            f"A family's name is 1 to {MAX_FAMILY_BYTES} letters, digits or ._=+-; "
            f"got {family[:80]!r}."
        )
    return family


def _is_of_library(item: Mapping[str, Any], library: str) -> bool:
    tags = item.get("tags")
    return item.get("library_name") == library or (isinstance(tags, list) and library in tags)


def _quote(value: str) -> str:
    """Return ``value`` with every unsafe byte as ``=XX``; :func:`_unquote` is the inverse.

    Names that start with a dot or a dash make hidden files and command-line options, so such a
    first character is quoted too, behind an ``x``.
    """
    plain = _quote_bytes(value)
    if plain[0].isalnum() and not plain.startswith("x="):
        return plain
    return "x" + "".join(f"={byte:02X}" for byte in value[0].encode()) + _quote_bytes(value[1:])


def _quote_bytes(value: str) -> str:
    return "".join(
        char if _PLAIN.fullmatch(char) else "".join(f"={byte:02X}" for byte in char.encode())
        for char in value
    )


def _unquote(text: str) -> str:
    encoded = text[1:] if text.startswith("x=") else text
    raw = re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m.group(1), 16)]), encoded.encode())
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{text[:80]!r} is no family's name; see `hub scan`.") from error
