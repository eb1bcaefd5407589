"""From the JSON a hub sends about a repo to a checked row. Pure, no I/O.

What it is: every string and number that a hub states passes here against stated bounds; what breaks
one is refused whole, with the field named, and never repaired. What it is not: a judgement on
whether a repo is worth having (``triage``, ``selection``).

Source: https://huggingface.co/docs/hub/api and https://huggingface.co/docs/hub/model-cards.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from ws_pipeline.errors import Reason, RefusedError

MAX_TAGS = 4096
"""Repos for many languages have about 1,000."""
MAX_TAG_BYTES = 512
MAX_TEXT_BYTES = 256
"""Of model type, library, architecture, licence, pipeline tag."""
MAX_ARCHITECTURES = 32
MAX_BASE_MODELS = 256
"""Merges name dozens of parents."""
MAX_FILES = 20_000
"""The hub allows 10,000 entries per folder and advises below 100,000 per repo."""
MAX_FILE_NAME_BYTES = 512
MAX_FILE_BYTES = 2**40
"""The hub's own limit is 500 GB per file."""
MAX_CARD_BYTES = 64 * 1024
MAX_CONFIG_BYTES = 64 * 1024
MAX_PARAMETERS = 2**53

_REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?")
_HUB_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOB_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ESSENTIAL_CARD_KEYS = ("license", "base_model", "base_model_relation", "library_name", "datasets")
_ESSENTIAL_CONFIG_KEYS = (
    *("model_type", "architectures", "auto_map", "quantization_config"),
    *("architecture", "diffusers", "peft"),
)


def is_repo_id(name: object) -> bool:
    """Say whether ``name`` is ``owner/name`` or ``name`` within the hub's own bounds."""
    return isinstance(name, str) and bool(_REPO_ID.fullmatch(name)) and ".." not in name


def is_file_name(name: object) -> bool:
    """Say whether ``name`` is a plain relative path: printable, no empty, ``.`` or ``..`` part."""
    if not isinstance(name, str) or not name or not name.isprintable():
        return False
    if len(name.encode(errors="replace")) > MAX_FILE_NAME_BYTES or "\\" in name or ":" in name:
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def parse_listing(item: object) -> dict[str, Any]:
    """Return what a listing row says of a repo: the identity and the columns that change freely.

    Args:
        item: One element of a ``/api/models`` page, with ``expand`` of :data:`LISTING_FIELDS`.

    Raises:
        RefusedError: With ``malformed_row``, naming the field that is out of bounds.
    """
    row = _mapping(item, "the row")
    repo_id = row.get("id", row.get("modelId"))
    if not isinstance(repo_id, str) or not is_repo_id(repo_id):
        _refuse("id", repo_id)
    return {
        "hub_id": _parse_hub_id(row.get("_id"), repo_id),
        "repo_id": repo_id,
        "revision": _pattern(row.get("sha"), _REVISION, "sha"),
        "created_at": _moment(row.get("createdAt"), "createdAt"),
        "last_modified": _moment(row.get("lastModified"), "lastModified"),
        "gated": _parse_gated(row.get("gated")),
        "private": _flag(row.get("private"), "private"),
        "disabled": _flag(row.get("disabled"), "disabled"),
    }


LISTING_FIELDS = (
    "sha",
    "createdAt",
    "lastModified",
    "gated",
    "private",
    "disabled",
    "library_name",
    "tags",
    "config",
)
"""What a listing is asked for. Light on purpose: heavy ``expand`` with a deep cursor times out."""


def parse_detail(item: object) -> dict[str, Any]:
    """Return what follows from the revision: files, card, config, lineage claims.

    Args:
        item: The answer of ``/api/models/{id}/revision/{sha}?blobs=true``.

    Raises:
        RefusedError: With ``malformed_row``, ``unsafe_file_name`` or ``too_many_files``.
    """
    row = _mapping(item, "the row")
    tags = _texts(row.get("tags"), "tags", MAX_TAGS, MAX_TAG_BYTES)
    config = _mapping(row.get("config") or {}, "config")
    card = _mapping(row.get("cardData") or {}, "cardData")
    base_models, relation = _parse_base_models(card, tags)
    return {
        "licence": _parse_licence(card, tags),
        "library": _text(row.get("library_name"), "library_name"),
        "pipeline_tag": _text(row.get("pipeline_tag"), "pipeline_tag"),
        "tags": tags,
        "model_type": _text(config.get("model_type"), "config.model_type"),
        "architectures": _texts(
            config.get("architectures"), "config.architectures", MAX_ARCHITECTURES, MAX_TEXT_BYTES
        ),
        "base_models": base_models,
        "base_model_relation": relation,
        "num_parameters": _parse_num_parameters(row.get("safetensors")),
        "files": _parse_files(row.get("siblings")),
        "card": _encode_capped(card, MAX_CARD_BYTES, _ESSENTIAL_CARD_KEYS, "cardData"),
        "config": _encode_capped(config, MAX_CONFIG_BYTES, _ESSENTIAL_CONFIG_KEYS, "config"),
    }


def quarantine(item: object, detail: str) -> dict[str, Any]:
    """Return the row of a listing item that could not be parsed, under a name made from the item.

    The same broken item has the same name in every crawl.
    """
    row = item if isinstance(item, Mapping) else {}
    stated = [row.get("_id"), row.get("id")]
    basis = stated if any(isinstance(part, str) for part in stated) else item
    digest = hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()
    name = row.get("id")
    return {
        "hub_id": f"malformed{digest[:24]}",
        "repo_id": name if is_repo_id(name) else f"malformed-{digest[:24]}",
        "revision": digest[:40],
        "reason": str(Reason.MALFORMED_ROW),
        "detail": detail,
    }


def _refuse(field: str, value: object, reason: Reason = Reason.MALFORMED_ROW) -> NoReturn:
    raise RefusedError(
        f"The hub's {field} is out of bounds: {repr(value)[:80]}; the row is left out.",
        reason=reason,
    )


def _mapping(value: object, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        _refuse(field, value)
    return value


def _pattern(value: object, pattern: re.Pattern[str], field: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        _refuse(field, value)
    return value


def _parse_hub_id(value: object, repo_id: str) -> str:
    """Return the hub's immutable id; a hub that has none is keyed by the name."""
    if value is None:
        return f"name{hashlib.sha256(repo_id.encode()).hexdigest()[:24]}"
    return _pattern(value, _HUB_ID, "_id")


def _text(value: object, field: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.isprintable() or len(value.encode()) > max_bytes:
        _refuse(field, value)
    return value


def _texts(value: object, field: str, max_items: int, max_bytes: int) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > max_items:
        _refuse(field, value)
    return [_text(item, field, max_bytes) for item in value if item is not None]


def _flag(value: object, field: str) -> bool:
    if value is not None and not isinstance(value, bool):
        _refuse(field, value)
    return bool(value)


def _moment(value: object, field: str) -> datetime | None:
    """Parse an ISO time; None where the hub states none."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(_text(value, field))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        _refuse(field, value)
    if not 2000 <= moment.year <= 2200:
        _refuse(field, value)
    return moment


def _parse_gated(value: object) -> str:
    if value in (None, False, ""):
        return ""
    if value is True:
        return "manual"
    if value not in ("auto", "manual"):
        _refuse("gated", value)
    return str(value)


def _parse_num_parameters(value: object) -> int | None:
    total = value.get("total") if isinstance(value, Mapping) else None
    return total if type(total) is int and 0 <= total <= MAX_PARAMETERS else None


def _parse_licence(card: Mapping[str, Any], tags: list[str]) -> str:
    """Return the card's licence, else the tag's; several are joined by a comma, in order."""
    stated = card.get("license")
    values = stated if isinstance(stated, list) else [stated]
    names = [v for v in values if isinstance(v, str) and v.isprintable()]
    names = names or [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    return ",".join(dict.fromkeys(name.lower() for name in names))[:MAX_TEXT_BYTES]


def _parse_base_models(card: Mapping[str, Any], tags: list[str]) -> tuple[list[str], str]:
    """Return the base models that a repo claims, and how it says it came from them.

    A claim that is no repo id cannot be resolved and is left out; the card's text keeps it.
    """
    stated = card.get("base_model")
    names = [name for name in (stated if isinstance(stated, list) else [stated]) if name]
    relation = card.get("base_model_relation")
    for tag in tags:
        parts = tag.split(":", 2)
        if parts[0] == "base_model":
            names.append(parts[-1])
            relation = relation or (parts[1] if len(parts) == 3 else None)
    unique = dict.fromkeys(name for name in names if is_repo_id(name))
    return list(unique)[:MAX_BASE_MODELS], _text(relation, "base_model_relation")


def _parse_files(value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse("siblings", value)
    if len(value) > MAX_FILES:
        _refuse("number of files", len(value), Reason.TOO_MANY_FILES)
    files = [_parse_file(_mapping(item, "siblings")) for item in value]
    if len({file["path"] for file in files}) != len(files):
        _refuse("siblings", "two files of one name", Reason.UNSAFE_FILE_NAME)
    return sorted(files, key=lambda file: str(file["path"]))


def _parse_file(item: Mapping[str, Any]) -> dict[str, Any]:
    path = item.get("rfilename")
    if not is_file_name(path):
        _refuse("file name", path, Reason.UNSAFE_FILE_NAME)
    large = item.get("lfs")
    large = large if isinstance(large, Mapping) else {}
    size = large.get("size", item.get("size"))
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        _refuse("file size", size)
    sha256, blob_id = large.get("sha256"), item.get("blobId")
    return {
        "path": path,
        "num_bytes": size,
        "sha256": "" if sha256 is None else _pattern(sha256, _SHA256, "lfs.sha256"),
        "blob_id": "" if blob_id is None else _pattern(blob_id, _BLOB_ID, "blobId"),
    }


def _encode_json(value: object, max_bytes: int, field: str) -> str:
    try:
        # ASCII, since a lone surrogate in a card would break the table it goes into.
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        _refuse(field, "not plain JSON")
    if len(text) > max_bytes:
        _refuse(field, f"{len(text)} characters")
    return text


def _encode_capped(
    value: Mapping[str, Any], max_bytes: int, essential: tuple[str, ...], field: str
) -> str:
    """Return an object as JSON; above the cap only the keys that later stages read.

    Long ones are honest: a model-index of a benchmark, a tokenizer's chat template.
    """
    try:
        return _encode_json(value, max_bytes, field)
    except RefusedError:
        kept = {key: value[key] for key in essential if key in value}
        return _encode_json(kept, max_bytes, field)
