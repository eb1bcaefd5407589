"""The book of a hub: what the scans stored of every repo, by family, in append-only shards.

What it is: reading a family as of the last commit, and the three changes that a scan makes: adding
a listing page, folding pages into families, ending. A change appends a shard to each touched family
and to the index; shards are merged by size, like a log-structured tree, so the cost of a change
does not depend on how many repos the book has. What it is not: the requests (``scan``), the
details of revisions (``crawl``, ``ledger``). Does store I/O.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import polars as pl

from ws_pipeline.errors import HubError, MissingInputError, StorageError
from ws_pipeline.hub.families import check_family
from ws_pipeline.hub.repo import Schema
from ws_pipeline.hub.scan_commit import MAX_TRIES, ROOT, Commit, CommitLog, Progress, Shard
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
"""A shard is merged with the newer ones once they have half its rows: each row is rewritten about
log2(rows of the family / rows of a change) times in its life, a family has as many shards."""

SMALL_ROWS = 512
"""Shards below this are merged at once: opening one costs as much as reading so many rows."""

MAX_GONE_SHARE, MIN_GONE = 0.2, 1000
"""A full scan that misses more of the book than this was cut short: nothing becomes a tombstone."""

_T = TypeVar("_T")
_Merge = Callable[[Sequence[pl.DataFrame]], pl.DataFrame]
_PAGE_SCHEMA = {**SCAN_SCHEMA, "digest": pl.UInt64()}
_SEEN_SCHEMA = {"hub_id": pl.String()}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanBook:
    """The book of one store."""

    folder: ObjectFolder

    @classmethod
    def of(cls, store: Store) -> "ScanBook":
        """Return the book that lies in a store."""
        return cls(folder=store.tables.folder)

    @property
    def commits(self) -> CommitLog:
        """Where the book stands."""
        return CommitLog(folder=self.folder)

    def families(self) -> dict[str, int]:
        """Return every family with its number of repos that are not deleted, by name."""
        index = self._latest(self.read_index)
        counts = index.filter(pl.col("digest") != GONE_DIGEST).group_by("family").len()
        return dict(sorted(counts.iter_rows()))

    def read(self, family: str) -> pl.DataFrame:
        """Return a family's rows (SCAN_SCHEMA), one per repo, ordered by hub_id.

        The rows are those of one commit, whatever a scan does meanwhile.
        """
        check_family(family)
        return self._latest(lambda commit: self.read_family(commit, family))

    def read_family(self, commit: Commit, family: str) -> pl.DataFrame:
        """Return a family's rows as of a commit; MissingInputError if it is long superseded."""
        shards = commit.families.get(family, ())
        frames = [self._read(shard, SCAN_SCHEMA) for shard in shards]
        if not frames:
            return pl.DataFrame(schema=SCAN_SCHEMA)
        return merge_rows(frames).filter(pl.col("state") != STATE_MOVED)

    def read_index(self, commit: Commit, ids: pl.DataFrame | None = None) -> pl.DataFrame:
        """Return the index (INDEX_SCHEMA), or its rows of the repos in ``ids`` (hub_id)."""
        frames = [pl.DataFrame(schema=INDEX_SCHEMA)]
        for shard in commit.index:
            frame = self._read(shard, INDEX_SCHEMA)
            frames.append(frame if ids is None else frame.join(ids, on="hub_id", how="semi"))
        return merge_index(frames)

    def _latest(self, read: Callable[[Commit], _T]) -> _T:
        """Read as of the last commit; again where its shards were merged and swept meanwhile."""
        for _ in range(MAX_TRIES):
            commit = self.commits.last()
            try:
                return read(commit)
            except MissingInputError:
                if self.commits.last().number == commit.number:
                    raise
        raise StorageError("The book changes faster than it can be read; try again.")

    # What a scan does. Each returns the new last commit.

    def add_page(self, commit: Commit, rows: pl.DataFrame, progress: Progress) -> Commit:
        """Store a listing page's rows and how far the scan is after it."""
        page = self._write("pages", commit, check_schema(rows, _PAGE_SCHEMA))
        return self.commits.add(replace(commit, pages=(*commit.pages, page), progress=progress))

    def fold(self, commit: Commit) -> Commit:
        """Put the stored pages into their families and the index."""
        progress = _under_way(commit)
        rows = pl.concat([self._read(page, _PAGE_SCHEMA) for page in commit.pages])
        ids = rows.select(pl.col("hub_id").unique().sort())
        changes = find_changes(rows, self.read_index(commit, ids))
        commit = self._append(commit, changes)
        if progress.kind == "full":
            seen = self._write("seen", commit, ids)
            progress = replace(progress, seen=(*progress.seen, seen))
        progress = replace(
            progress,
            num_changed=progress.num_changed + changes.height,
            families=tuple(sorted({*progress.families, *changes["family"].unique()})),
        )
        return self.commits.add(replace(commit, pages=(), progress=progress))

    def finish(self, commit: Commit) -> tuple[Commit, pl.DataFrame]:
        """End a scan whose pages are all folded: move the watermark, mark what is gone.

        Returns:
            The commit and the tombstones' rows.

        Raises:
            HubError: If a full scan lacks so much of the book that its listing was cut short.
        """
        progress = _under_way(commit)
        gone = pl.DataFrame(schema=_PAGE_SCHEMA)
        if progress.kind == "full":
            gone = self._find_gone(commit, progress.seen)
            commit = replace(self._append(commit, gone), fully_scanned_at=progress.started)
        ended = replace(
            commit,
            progress=None,
            watermark=max(progress.newest, commit.watermark),
            scanned_at=progress.started,
        )
        return self.commits.add(ended), gone

    def _find_gone(self, commit: Commit, seen: Sequence[Shard]) -> pl.DataFrame:
        """Return the tombstones of the repos that a full scan did not come across."""
        ids = [pl.DataFrame(schema=_SEEN_SCHEMA), *(self._read(s, _SEEN_SCHEMA) for s in seen)]
        alive = self.read_index(commit).filter(pl.col("digest") != GONE_DIGEST)
        gone = alive.join(pl.concat(ids), on="hub_id", how="anti")
        if gone.height > max(MIN_GONE, MAX_GONE_SHARE * alive.height):
            raise HubError(
                f"The hub's full listing lacks {gone.height} of {alive.height} known repos; it was "
                "probably cut short, and none is marked as deleted. Scan again."
            )
        stones = [pl.DataFrame(schema=_PAGE_SCHEMA)]
        for (family,), part in gone.sort("family").group_by("family", maintain_order=True):
            rows = self.read_family(commit, str(family))
            stones.append(
                rows.join(part, on="hub_id", how="semi").with_columns(
                    state=pl.lit(STATE_DELETED),
                    reason=pl.lit(""),
                    digest=pl.lit(GONE_DIGEST, pl.UInt64),
                )
            )
        return pl.concat(stones).sort("family", "hub_id")

    def _append(self, commit: Commit, changes: pl.DataFrame) -> Commit:
        """Return an unpublished commit with the changes in the touched families and the index."""
        if changes.is_empty():
            return commit
        families = dict(commit.families)
        for (family,), rows in changes.group_by("family", maintain_order=True):
            name = check_family(str(family))
            frame = rows.select(SCAN_SCHEMA.keys())
            families[name] = self._extend(
                f"families/{name}", families.get(name, ()), commit, frame, merge_rows
            )
        index = self._extend("index", commit.index, commit, index_of(changes), merge_index)
        return replace(commit, families=families, index=index)

    def _extend(
        self,
        place: str,
        shards: Sequence[Shard],
        commit: Commit,
        frame: pl.DataFrame,
        merge: _Merge,
    ) -> tuple[Shard, ...]:
        """Append rows, merging them with the newest shards while those are not much larger."""
        kept, frames = list(shards), [frame]
        num_rows = frame.height
        while kept and kept[-1].num_rows <= max(MERGE_FACTOR * num_rows, SMALL_ROWS):
            shard = kept.pop()
            frames.insert(0, self._read(shard, frame.schema))
            num_rows += shard.num_rows
        return (*kept, self._write(place, commit, merge(frames)))

    def _write(self, place: str, commit: Commit, frame: pl.DataFrame) -> Shard:
        """Store a shard that the next commit may name.

        Its name holds that commit's number and its own digest: a killed scan that is resumed
        writes the same names, two scans at once never write over each other.
        """
        self.folder.check_space(0)
        with self.folder.temporary_path() as temporary:
            write_parquet(frame, temporary, what=f"a shard of {place}")
            digest, _ = hash_file(temporary)
            name = f"{place}/{commit.number + 1:012d}-{digest[:16]}.parquet"
            self.folder.create_file(f"{ROOT}/{name}", temporary)
        return Shard(name=name, num_rows=frame.height)

    def _read(self, shard: Shard, schema: Schema) -> pl.DataFrame:
        data = self.folder.read(f"{ROOT}/{shard.name}")
        return check_schema(pl.read_parquet(io.BytesIO(data)), schema)


def _under_way(commit: Commit) -> Progress:
    if commit.progress is None:
        raise StorageError("There is no scan under way; begin one.")
    return commit.progress
