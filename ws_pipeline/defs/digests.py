"""Digests of values and files, as data versions and provenance use them. Reads files only."""

import hashlib
import json
from pathlib import Path


def digest(value: object) -> str:
    """Sixteen hex digits over the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_version(path: Path) -> str:
    """Sixteen hex digits over a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
