"""Create-only JSON records: what a stage found out or made of one repo revision.

What it is: ``manifests/<stage>/<hub_id>/<revision>/<version>.json``, written last, after the blobs
it refers to, and never changed. What it is not: the list of manifests that an experiment used
(``snapshots``). Does I/O.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ws_pipeline.errors import (
    ManifestConflictError,
    MissingInputError,
    Reason,
    RefusedError,
    StorageError,
)
from ws_pipeline.storage.objects import ObjectFolder

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,95}")


def manifest_key(stage: str, hub_id: str, revision: str, version: str) -> str:
    """Return ``<stage>/<hub_id>/<revision>/<version>``.

    Raises:
        RefusedError: If a part is empty, longer than 96 characters, or holds anything but letters,
            digits and ``._=+-``.
    """
    for name, part in zip(
        ("stage", "hub_id", "revision", "version"),
        (stage, hub_id, revision, version),
        strict=True,
    ):
        if not _PART.fullmatch(part):
            raise RefusedError(
                f"A manifest's {name} must be 1 to 96 letters, digits or ._=+-; got {part[:80]!r}.",
                reason=Reason.UNSAFE_FILE_NAME,
            )
    return f"{stage}/{hub_id}/{revision}/{version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestStore:
    """Create-only JSON objects."""

    folder: ObjectFolder

    def create(self, key: str, payload: Mapping[str, Any]) -> str:
        """Store ``payload`` under ``key`` and return the key; the same content again is fine.

        Raises:
            ManifestConflictError: If the key holds other content.
        """
        data = _encode(payload)
        if not self.folder.create_bytes(_path(key), data):
            self._require_equal(key, data)
        return key

    def create_many(self, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        """Store several manifests together, as :meth:`create` does; all are when it returns.

        Raises:
            ManifestConflictError: If a key holds other content; the others are stored.
        """
        data = {key: _encode(payload) for key, payload in payloads.items()}
        created = self.folder.create_many({_path(key): text for key, text in data.items()})
        for key, text in data.items():
            if _path(key) not in created:
                self._require_equal(key, text)

    def _require_equal(self, key: str, data: bytes) -> None:
        if self.folder.read(_path(key)) != data:
            raise ManifestConflictError(
                f"The manifest {key} exists with other content. A stage whose result changed needs "
                "a new version string; stored manifests are never overwritten."
            )

    def exists(self, key: str) -> bool:
        """Say whether the manifest is stored."""
        return self.folder.exists(_path(key))

    def read(self, key: str) -> dict[str, Any]:
        """Return a manifest; MissingInputError if there is none."""
        value = json.loads(self.folder.read(_path(key)))
        if not isinstance(value, dict):
            raise StorageError(
                f"The manifest {key} must be a JSON object; remove the damaged file."
            )
        return value

    def keys(self, stage: str) -> list[str]:
        """Return the keys of a stage's manifests, sorted."""
        found = self.folder.keys(f"manifests/{stage}")
        return [key[len("manifests/") : -len(".json")] for key in found if key.endswith(".json")]

    def read_if_exists(self, key: str) -> dict[str, Any] | None:
        """Return a manifest or None: one request where ``exists`` and ``read`` would be two."""
        try:
            return self.read(key)
        except MissingInputError:
            return None


def _path(key: str) -> str:
    return f"manifests/{key}.json"


def _encode(payload: Mapping[str, Any]) -> bytes:
    """Return canonical JSON: sorted keys, no spaces, ASCII; NaN and infinities are refused."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
