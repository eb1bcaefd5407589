"""Objects over others that stay as they are: what a dry run writes to.

What it is: an ``ObjectFolder`` that reads from a base and keeps every change in a top of its own.
What it is not: a transaction, there is no way down into the base. Does the I/O of its two folders.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ws_pipeline.errors import MissingInputError
from ws_pipeline.storage.objects import ObjectFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlayFolder:
    """A base that is only read, and a top that takes the changes. Of one thread.

    Args:
        base: What is there.
        top: Where changes go; empty at first.
    """

    base: ObjectFolder
    top: ObjectFolder
    _removed: set[str] = field(default_factory=set)

    @property
    def root(self) -> str:
        """See :class:`ObjectFolder`."""
        return self.top.root

    def _of(self, key: str) -> ObjectFolder:
        """Return the folder that has the last word on a key."""
        if key in self._removed:
            raise MissingInputError(f"There is no object {self.uri(key)}.")
        return self.top if self.top.exists(key) else self.base

    def create_bytes(self, key: str, data: bytes) -> bool:
        """See :class:`ObjectFolder`."""
        return self._begin(key) and self.top.create_bytes(key, data)

    def create_many(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        """See :class:`ObjectFolder`."""
        return self.top.create_many({key: objects[key] for key in objects if self._begin(key)})

    def create_file(self, key: str, path: Path) -> bool:
        """See :class:`ObjectFolder`."""
        return self._begin(key) and self.top.create_file(key, path)

    def _begin(self, key: str) -> bool:
        """Say whether a key is free, and let the top have the last word on it."""
        is_free = not self.exists(key)
        self._removed.discard(key)
        return is_free

    def replace_file(self, key: str, path: Path) -> None:
        """See :class:`ObjectFolder`."""
        self._removed.discard(key)
        self.top.replace_file(key, path)

    def exists(self, key: str) -> bool:
        """See :class:`ObjectFolder`."""
        return key not in self._removed and (self.top.exists(key) or self.base.exists(key))

    def num_bytes(self, key: str) -> int:
        """See :class:`ObjectFolder`."""
        return self._of(key).num_bytes(key)

    def read(self, key: str) -> bytes:
        """See :class:`ObjectFolder`."""
        return self._of(key).read(key)

    def read_range(self, key: str, start: int, num_bytes: int) -> bytes:
        """See :class:`ObjectFolder`."""
        return self._of(key).read_range(key, start, num_bytes)

    def keys(self, prefix: str) -> list[str]:
        """See :class:`ObjectFolder`."""
        both = {*self.base.keys(prefix), *self.top.keys(prefix)}
        return sorted(both - self._removed)

    def remove(self, key: str) -> None:
        """See :class:`ObjectFolder`."""
        self.top.remove(key)
        if self.base.exists(key):
            self._removed.add(key)

    def uri(self, key: str) -> str:
        """See :class:`ObjectFolder`."""
        return self.top.uri(key)

    def temporary_path(self) -> contextlib.AbstractContextManager[Path]:
        """See :class:`ObjectFolder`."""
        return self.top.temporary_path()

    def check_space(self, num_bytes: int) -> None:
        """See :class:`ObjectFolder`."""
        self.top.check_space(num_bytes)
