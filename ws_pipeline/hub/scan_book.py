"""The book of a hub: what the scans stored of every repo, by family, in append-only segments.

What it is: reading a family as of the last edition, and the three changes that a scan makes: adding
a listing page, folding pages into families, ending. A change appends a segment to each touched
family and to the index; segments are merged by size, like a log-structured tree, so the cost of a
change does not depend on how many repos the book has. What it is not: the requests (``scan``), the
details of revisions (``crawl``, ``ledger``). Does store I/O.
"""

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlsplit

import polars as pl

from ws_pipeline.errors import HubError, MissingInputError, StorageError
from ws_pipeline.hub.families import check_family
from ws_pipeline.hub.repo import Schema
from ws_pipeline.hub.scan_edition import (
    MAX_TRIES,
    ROOT,
    Edition,
    EditionLog,
    Progress,
    Segment,
    moment_of,
)
from ws_pipeline.hub.scan_rows import (
    GONE_DIGEST,
    INDEX_SCHEMA,
    SCAN_SCHEMA,
    STATE_DELETED,
    STATE_MOVED,
    check_schema,
    find_changes,
    index_of,
    merge_index,
    merge_rows,
)
from ws_pipeline.storage.objects import ObjectFolder, hash_file
from ws_pipeline.storage.store import Store
from ws_pipeline.storage.tables import write_parquet

MERGE_FACTOR = 2
"""A segment is merged with the newer ones once they have half its rows: each row is rewritten about
log2(rows of the family / rows of a change) times in its life, a family has as many segments."""

SMALL_ROWS = 512
"""Segments below this are merged at once: opening one costs as much as reading so many rows."""

MAX_GONE_SHARE, MIN_GONE = 0.2, 1000
"""A full scan that misses more of the book than this may have been cut short: the hub is asked for
some of the missing repos before all of them become tombstones."""

NUM_ASKED = 20
"""Missing repos that are asked for. Of a listing that was cut short all of them would be there."""

IsThere = Callable[[str, str], bool]
"""Asks the hub whether (hub id, repo id) is still there."""

_T = TypeVar("_T")
_Merge = Callable[[Sequence[pl.DataFrame]], pl.DataFrame]
_PAGE_SCHEMA = {**SCAN_SCHEMA, "digest": pl.UInt64()}
_SEEN_SCHEMA = {"hub_id": pl.String()}


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyLook:
    """What the book says of a family as of one edition.

    Attributes:
        rows: SCAN_SCHEMA, one per repo, by hub_id. digest: Changes when the rows do. scanned_at:
        When the last scan that ended began; None before the first.
    """

    rows: pl.DataFrame
    digest: str
    scanned_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanBook:
    """The book of one hub in one store."""

    folder: ObjectFolder
    root: str = ROOT

    @classmethod
    def of(cls, store: Store, endpoint: str = "") -> "ScanBook":
        """Return the book of a hub in a store.

        Args:
            store: Where it lies.
            endpoint: Of the hub; "" is the home's own. Two hubs have no watermark in common, and
                what one lacks is not gone from the other.
        """
        return cls(folder=store.tables.folder, root=f"{ROOT}{_name_of(endpoint)}")

    @property
    def editions(self) -> EditionLog:
        """Where the book stands."""
        return EditionLog(folder=self.folder, root=self.root)

    def families(self) -> dict[str, int]:
        """Return every family with its number of repos that are not deleted, by name."""
        index = self._latest(self.read_index)
        counts = index.filter(pl.col("digest") != GONE_DIGEST).group_by("family").len()
        return dict(sorted(counts.iter_rows()))

    def read(self, family: str) -> pl.DataFrame:
        """Return a family's rows (SCAN_SCHEMA), one per repo, ordered by hub_id.

        The rows are those of one edition, whatever a scan does meanwhile.
        """
        return self.look(family).rows

    def look(self, family: str) -> FamilyLook:
        """Return a family's rows with what tells whether they are new."""
        check_family(family)
        return self._latest(
            lambda edition: FamilyLook(
                rows=self.read_family(edition, family),
                digest=edition.family_digest(family),
                scanned_at=moment_of(edition.scanned_at),
            )
        )

    def read_family(self, edition: Edition, family: str) -> pl.DataFrame:
        """Return a family's rows as of an edition; MissingInputError if it is long superseded."""
        segments = edition.families.get(family, ())
        frames = [self._read(segment, SCAN_SCHEMA) for segment in segments]
        if not frames:
            return pl.DataFrame(schema=SCAN_SCHEMA)
        return merge_rows(frames).filter(pl.col("state") != STATE_MOVED)

    def read_index(self, edition: Edition, ids: pl.DataFrame | None = None) -> pl.DataFrame:
        """Return the index (INDEX_SCHEMA), or its rows of the repos in ``ids`` (hub_id)."""
        frames = [pl.DataFrame(schema=INDEX_SCHEMA)]
        for segment in edition.index:
            frame = self._read(segment, INDEX_SCHEMA)
            frames.append(frame if ids is None else frame.join(ids, on="hub_id", how="semi"))
        return merge_index(frames)

    def _latest(self, read: Callable[[Edition], _T]) -> _T:
        """Read as of the last edition; again where its segments were merged and swept meanwhile."""
        for _ in range(MAX_TRIES):
            edition = self.editions.last()
            try:
                return read(edition)
            except MissingInputError:
                if self.editions.last().number == edition.number:
                    raise
        raise StorageError("The book changes faster than it can be read; try again.")

    # What a scan does. Each returns the new last edition.

    def add_page(self, edition: Edition, rows: pl.DataFrame, progress: Progress) -> Edition:
        """Store a listing page's rows and how far the scan is after it."""
        page = self._write("pages", edition, check_schema(rows, _PAGE_SCHEMA))
        return self.editions.add(replace(edition, pages=(*edition.pages, page), progress=progress))

    def fold(self, edition: Edition) -> Edition:
        """Put the stored pages into their families and the index."""
        progress = _under_way(edition)
        rows = pl.concat([self._read(page, _PAGE_SCHEMA) for page in edition.pages])
        ids = rows.select(pl.col("hub_id").unique().sort())
        changes = find_changes(rows, self.read_index(edition, ids))
        edition = self._append(edition, changes)
        if progress.kind == "full":
            seen = self._write("seen", edition, ids)
            progress = replace(progress, seen=(*progress.seen, seen))
        progress = replace(
            progress,
            num_changed=progress.num_changed + changes.height,
            families=tuple(sorted({*progress.families, *changes["family"].unique()})),
        )
        return self.editions.add(replace(edition, pages=(), progress=progress))

    def finish(
        self, edition: Edition, *, is_there: IsThere = lambda _hub_id, _repo_id: True
    ) -> tuple[Edition, pl.DataFrame]:
        """End a scan whose pages are all folded: move the watermark, mark what is gone.

        Args:
            edition: The last one.
            is_there: Asked for some of the missing repos where they are suspiciously many.

        Returns:
            The edition and the tombstones' rows.

        Raises:
            HubError: If a full scan lacks so much of the book that its listing was cut short.
        """
        progress = _under_way(edition)
        gone = pl.DataFrame(schema=_PAGE_SCHEMA)
        if progress.kind == "full":
            try:
                gone = self._find_gone(edition, progress.seen, is_there)
            except HubError:
                self.abandon(edition)
                raise
            edition = replace(self._append(edition, gone), fully_scanned_at=progress.started)
        ended = replace(
            edition,
            progress=None,
            watermark=max(progress.newest, edition.watermark),
            scanned_at=progress.started,
        )
        return self.editions.add(ended), gone

    def abandon(self, edition: Edition) -> Edition:
        """Give up the scan under way; what it has stored stays, the watermark does too."""
        if edition.pages:
            edition = self.fold(edition)
        return self.editions.add(replace(edition, progress=None))

    def _find_gone(
        self, edition: Edition, seen: Sequence[Segment], is_there: IsThere
    ) -> pl.DataFrame:
        """Return the tombstones of the repos that a full scan did not come across."""
        ids = [pl.DataFrame(schema=_SEEN_SCHEMA), *(self._read(s, _SEEN_SCHEMA) for s in seen)]
        alive = self.read_index(edition).filter(pl.col("digest") != GONE_DIGEST)
        gone = alive.join(pl.concat(ids), on="hub_id", how="anti")
        stones = [pl.DataFrame(schema=_PAGE_SCHEMA)]
        for (family,), part in gone.sort("family").group_by("family", maintain_order=True):
            rows = self.read_family(edition, str(family))
            stones.append(
                rows.join(part, on="hub_id", how="semi").with_columns(
                    state=pl.lit(STATE_DELETED),
                    reason=pl.lit(""),
                    digest=pl.lit(GONE_DIGEST, pl.UInt64),
                )
            )
        found = pl.concat(stones).sort("family", "hub_id")
        if gone.height > max(MIN_GONE, MAX_GONE_SHARE * alive.height):
            asked = found.gather_every(-(-found.height // NUM_ASKED)).select("hub_id", "repo_id")
            if any(is_there(*row) for row in asked.iter_rows()):
                raise HubError(
                    f"The hub's full listing lacks {gone.height} of {alive.height} known repos, "
                    "but some of them are there: it was cut short, and none is marked as deleted. "
                    "Scan again."
                )
        return found

    def _append(self, edition: Edition, changes: pl.DataFrame) -> Edition:
        """Return an unpublished edition with the changes in the touched families and the index."""
        if changes.is_empty():
            return edition
        families = dict(edition.families)
        for (family,), rows in changes.group_by("family", maintain_order=True):
            name = check_family(str(family))
            frame = rows.select(SCAN_SCHEMA.keys())
            families[name] = self._extend(
                f"families/{name}", families.get(name, ()), edition, frame, merge_rows
            )
        index = self._extend("index", edition.index, edition, index_of(changes), merge_index)
        return replace(edition, families=families, index=index)

    def _extend(
        self,
        place: str,
        segments: Sequence[Segment],
        edition: Edition,
        frame: pl.DataFrame,
        merge: _Merge,
    ) -> tuple[Segment, ...]:
        """Append rows, merging them with the newest segments while those are not much larger."""
        kept, frames = list(segments), [frame]
        num_rows = frame.height
        while kept and kept[-1].num_rows <= max(MERGE_FACTOR * num_rows, SMALL_ROWS):
            segment = kept.pop()
            frames.insert(0, self._read(segment, frame.schema))
            num_rows += segment.num_rows
        return (*kept, self._write(place, edition, merge(frames)))

    def _write(self, place: str, edition: Edition, frame: pl.DataFrame) -> Segment:
        """Store a segment that the next edition may name.

        Its name holds that edition's number and its own digest: a killed scan that is resumed
        writes the same names, two scans at once never write over each other.
        """
        self.folder.check_space(0)
        with self.folder.temporary_path() as temporary:
            write_parquet(frame, temporary, what=f"a segment of {place}")
            digest, _ = hash_file(temporary)
            name = f"{place}/{edition.number + 1:012d}-{digest[:16]}.parquet"
            self.folder.create_file(f"{self.root}/{name}", temporary)
        return Segment(name=name, num_rows=frame.height)

    def _read(self, segment: Segment, schema: Schema) -> pl.DataFrame:
        data = self.folder.read(f"{self.root}/{segment.name}")
        return check_schema(pl.read_parquet(io.BytesIO(data)), schema)


def _under_way(edition: Edition) -> Progress:
    if edition.progress is None:
        raise StorageError("There is no scan under way; begin one.")
    return edition.progress


def _name_of(endpoint: str) -> str:
    """Return what tells a hub's book from others: "" or its host, readable, and a digest."""
    if not endpoint:
        return ""
    host = re.sub(r"[^A-Za-z0-9.-]", "", urlsplit(endpoint).hostname or "")[:64]
    digest = hashlib.sha256(endpoint.rstrip("/").lower().encode()).hexdigest()
    return f"-{host}-{digest[:8]}"
