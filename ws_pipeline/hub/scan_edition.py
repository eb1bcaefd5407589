"""Where a scan stands: the one small object that says which segments are part of the book.

What it is: editions numbered 1, 2, ..., each a whole statement: cursor, watermark and the segments
of every family. An edition is created only if no other has its number, so of two scans that run
into each other one stops, on a directory and on S3 alike; whatever no edition names does not exist
for a reader. What it is not: the segments' content (``scan_rows``). Does I/O.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

from ws_pipeline.errors import MissingInputError, Reason, StorageError
from ws_pipeline.storage.objects import ObjectFolder

ROOT = "scan"
"""Folder of a book; that of a second hub in the same store has another name."""
FORMAT = 1
NUM_KEPT = 3
"""Editions that stay: a reader may have listed them just before they were superseded."""

MAX_TRIES = 20
"""A reader that lost the race against as many editions in a row gives up; one takes 5 ms."""

ScanKind = Literal["full", "recent"]

_NAME = re.compile(r"(\d{12})\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """An immutable Parquet object of the book: its name below the root and its rows."""

    name: str
    num_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A scan under way.

    Attributes:
        kind: ``full`` by creation, ``recent`` by last change. started: ISO time. cursor: Of the
        next page; "" at the first. num_pages: Stored so far. newest: ISO time of the newest change
        that the hub knew when the scan began; "" before that is known. num_listed, num_changed,
        num_malformed: Rows so far. seen: Segments of the ids that a full scan came across.
    """

    kind: ScanKind
    started: str
    cursor: str = ""
    is_listed: bool = False
    num_pages: int = 0
    newest: str = ""
    num_listed: int = 0
    num_changed: int = 0
    num_malformed: int = 0
    families: tuple[str, ...] = ()
    seen: tuple[Segment, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Edition:
    """The whole book at one moment.

    Attributes:
        number: 0 for the empty book. progress: The scan under way, if any. pages: Listing pages
        that are stored but not yet part of any family, oldest first. watermark: Changes up to here
        are in the book. scanned_at, fully_scanned_at: When the last (full) scan that ended began.
        families, index: Segments, oldest first.
    """

    number: int = 0
    progress: Progress | None = None
    pages: tuple[Segment, ...] = ()
    watermark: str = ""
    scanned_at: str = ""
    fully_scanned_at: str = ""
    families: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    index: tuple[Segment, ...] = ()

    def segments(self) -> list[Segment]:
        """Return every segment that this edition names."""
        seen = self.progress.seen if self.progress else ()
        of_families = [segment for segments in self.families.values() for segment in segments]
        return [*self.pages, *seen, *self.index, *of_families]

    def num_rows(self) -> int:
        """Return the rows of the index: at least as many as repos, without reading any."""
        return sum(segment.num_rows for segment in self.index)

    def family_digest(self, family: str) -> str:
        """Return 16 hex digits that change when a scan found something new in a family."""
        names = "\0".join(segment.name for segment in self.families.get(family, ()))
        return hashlib.sha256(names.encode()).hexdigest()[:16]


def moment_of(text: str) -> datetime | None:
    """Return an edition's ISO time; None for ""."""
    return datetime.fromisoformat(text) if text else None


@dataclass(frozen=True, kw_only=True, slots=True)
class EditionLog:
    """The editions of one book."""

    folder: ObjectFolder
    root: str = ROOT

    def last(self) -> Edition:
        """Return the newest edition; the empty one where nothing was scanned yet."""
        for _ in range(MAX_TRIES):
            numbers = self._numbers()
            if not numbers:
                return Edition()
            try:
                return _decode(self.folder.read(self._key(max(numbers))), self.root)
            except MissingInputError:  # superseded and removed since it was listed
                continue
        raise StorageError("The scan's editions change faster than they can be read; try again.")

    def add(self, edition: Edition) -> Edition:
        """Publish an edition under the number after its own, which is that of the book it changes.

        Raises:
            StorageError: With ``conflict``, if another scan has published one in the meantime.
        """
        edition = replace(edition, number=edition.number + 1)
        if not self.folder.create_bytes(self._key(edition.number), _encode(edition)):
            raise StorageError(
                "Another scan of the same store is at work; wait until it has ended, then run "
                "again.",
                reason=Reason.CONFLICT,
            )
        self.folder.remove(self._key(max(edition.number - NUM_KEPT, 0)))
        return edition

    def sweep(self, edition: Edition) -> int:
        """Remove the objects that ``edition``, the newest, has left behind; return how many.

        Segments of a later number may belong to a scan that is about to publish them, and stay.
        """
        kept = {f"{self.root}/{segment.name}" for segment in edition.segments()}
        kept |= {self._key(edition.number - age) for age in range(NUM_KEPT)}
        num_removed = 0
        for key in self.folder.keys(self.root):
            number = re.match(r"\d{12}", key.rsplit("/", 1)[-1])
            if key not in kept and number is not None and int(number.group()) <= edition.number:
                self.folder.remove(key)
                num_removed += 1
        return num_removed

    def _numbers(self) -> list[int]:
        names = (key.rsplit("/", 1)[-1] for key in self.folder.keys(f"{self.root}/editions"))
        matches = (_NAME.fullmatch(name) for name in names)
        return [int(match.group(1)) for match in matches if match]

    def _key(self, number: int) -> str:
        return f"{self.root}/editions/{number:012d}.json"


def _encode(edition: Edition) -> bytes:
    value = {"format": FORMAT, **_fields(edition)}
    return json.dumps(value, separators=(",", ":"), sort_keys=True, default=_plain).encode()


def _plain(value: object) -> Any:
    return [value.name, value.num_rows] if isinstance(value, Segment) else _fields(value)


def _fields(value: Any) -> dict[str, Any]:
    """Return a dataclass's fields; ``asdict`` would copy thousands of segments."""
    return {entry.name: getattr(value, entry.name) for entry in fields(value)}


def _decode(data: bytes, root: str) -> Edition:
    value: dict[str, Any] = json.loads(data)
    if value.pop("format", None) != FORMAT:
        raise StorageError(
            "The scan was stored by another version of this program; remove the store's folder "
            f"'{root}' and scan again."
        )
    progress = value.pop("progress")
    if progress is not None:
        seen, touched = _segments(progress.pop("seen")), tuple(progress.pop("families"))
        progress = Progress(seen=seen, families=touched, **progress)
    families = {name: _segments(segments) for name, segments in value.pop("families").items()}
    pages, index = _segments(value.pop("pages")), _segments(value.pop("index"))
    return Edition(progress=progress, pages=pages, index=index, families=families, **value)


def _segments(values: list[list[Any]]) -> tuple[Segment, ...]:
    return tuple(Segment(name=name, num_rows=num_rows) for name, num_rows in values)
