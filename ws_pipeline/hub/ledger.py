"""What is known of every repo of a family, and how far each came; on the store's tables.

What it is: the crawl's own table (``ledger/repos/<family>``) and one table of verdicts per later
stage (``ledger/verdicts/<stage>/<family>``). Each table has one writer, so nothing is merged under
a race; the whole picture is joined when it is read. What it is not: a cache of verdicts
(create-only manifests are) or the judge of anything.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from ws_pipeline.errors import RefusedError
from ws_pipeline.hub.families import check_family
from ws_pipeline.hub.repo import (
    KEY_SCHEMA,
    REPO_SCHEMA,
    STATUS_DELETED,
    STATUS_REFUSED,
    TRANSIENT_REASONS,
    check_frame,
)
from ws_pipeline.storage.store import Store

STAGES: dict[str, str] = {
    "headers": "triaged",
    "selection": "selected",
    "files": "stored",
    "layers": "planned",
    "shards": "tokenised",
    "corpus": "in_corpus",
}
"""The stages after the crawl, in order, with the status of a repo that passed them."""

VERDICT_SCHEMA: dict[str, pl.DataType] = {
    **{name: KEY_SCHEMA[name] for name in KEY_SCHEMA if name != "reused"},
    "attempt": pl.Int32(),
}

REFUSAL_SCHEMA: dict[str, pl.DataType] = {
    name: pl.String() for name in ("family", "repo_id", "stage", "status", "reason", "detail")
}
"""``stage`` is that whose verdict it was, ``repos`` for the crawl's own."""

_IDENTITY = ["hub_id", "revision"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The ledger of one store."""

    store: Store

    def families(self) -> list[str]:
        """Return the families that were crawled, sorted."""
        keys = self.store.tables.keys("ledger/repos")
        return sorted(key.removeprefix("ledger/repos/") for key in keys)

    def read_repos(self, family: str) -> pl.DataFrame:
        """Return the last crawl's rows (REPO_SCHEMA) as it wrote them; empty before the first."""
        return self._scan_repos(family).collect()

    def write_repos(self, family: str, frame: pl.DataFrame) -> int:
        """Replace a family's crawl table; return the number of rows.

        Raises:
            StorageError: If the frame is no stage table.
            RefusedError: If its columns are not REPO_SCHEMA.
        """
        if dict(frame.schema) != REPO_SCHEMA:
            raise RefusedError(f"The ledger needs the columns of REPO_SCHEMA; got {frame.columns}.")
        return self.store.tables.write(_repos_key(family), check_frame(frame))

    def read_verdicts(self, family: str, stage: str) -> pl.DataFrame:
        """Return a stage's verdicts (VERDICT_SCHEMA); empty before its first run."""
        key = _verdicts_key(family, stage)
        if not self.store.tables.exists(key):
            return pl.DataFrame(schema=VERDICT_SCHEMA)
        return self.store.tables.scan(key).collect()

    def record_verdicts(self, family: str, stage: str, frame: pl.DataFrame) -> int:
        """Replace a stage's verdicts by those of its table; return how many.

        Args:
            family: Of the rows.
            stage: A key of STAGES.
            frame: The stage's table; only its key columns are read. ``attempt`` counts up while a
                revision fails for a reason that may pass (TRANSIENT_REASONS).
        """
        check_frame(frame)
        before = self.read_verdicts(family, stage).select(*_IDENTITY, before="attempt")
        transient = pl.col("reason").is_in([str(reason) for reason in TRANSIENT_REASONS])
        verdicts = (
            frame.select(name for name in VERDICT_SCHEMA if name != "attempt")
            .join(before, on=_IDENTITY, how="left")
            .with_columns(before=pl.col("before").fill_null(0))
            .with_columns(
                attempt=pl.when(transient | (pl.col("before") == 0))
                .then(pl.col("before") + 1)
                .otherwise(pl.col("before"))
                .cast(pl.Int32)
            )
            .drop("before")
            .sort(_IDENTITY)
        )
        return self.store.tables.write(_verdicts_key(family, stage), verdicts)

    def read(self, family: str) -> pl.DataFrame:
        """Return the family's rows (REPO_SCHEMA) with how far each came.

        ``status`` is the furthest stage that a revision passed, or ``refused`` at the first stage
        that refused it, whose ``reason``, ``detail`` and ``attempt`` the row carries. A verdict
        on another revision than the current one does not count. ``accepted`` stays the crawl's,
        so the frame's ``repo.frame_digest`` is that of the crawl.
        """
        repos = self.read_repos(family)
        rows = repos.to_dicts()
        verdicts = {stage: self._verdicts_by_revision(family, stage) for stage in STAGES}
        for row in rows:
            _apply_verdicts(row, verdicts)
        return pl.DataFrame(rows, schema=REPO_SCHEMA)

    def read_refusals(self, family: str) -> pl.DataFrame:
        """Return one row per repo that did not go through: REFUSAL_SCHEMA.

        The rows of :meth:`read` that have a reason, without the cost of all others.
        """
        columns = (*_IDENTITY, "repo_id", "status", "reason", "detail")
        triaged = self.read_verdicts(family, "headers").select(*_IDENTITY, is_judged=pl.lit(True))
        crawled = self._scan_repos(family).select(columns).collect()
        crawled = crawled.join(triaged, on=_IDENTITY, how="left")
        ended = pl.col("status").is_in([STATUS_REFUSED, STATUS_DELETED])
        own = crawled.filter((ended | pl.col("is_judged").is_null()) & (pl.col("reason") != ""))
        found = [own.with_columns(stage=pl.lit("repos"))]
        live = crawled.filter(~ended)
        for stage in STAGES:
            verdicts = self.read_verdicts(family, stage).drop("repo_id", "attempt")
            judged = live.select(*_IDENTITY, "repo_id").join(verdicts, on=_IDENTITY)
            refused = judged.filter(~pl.col("accepted"))
            found.append(refused.with_columns(status=pl.lit(STATUS_REFUSED), stage=pl.lit(stage)))
            live = judged.filter("accepted")
        rows = pl.concat(
            [frame.with_columns(family=pl.lit(family)) for frame in found], how="diagonal"
        )
        return rows.select(*REFUSAL_SCHEMA).sort("repo_id")

    def _scan_repos(self, family: str) -> pl.LazyFrame:
        key = _repos_key(family)
        if not self.store.tables.exists(key):
            return pl.LazyFrame(schema=REPO_SCHEMA)
        return self.store.tables.scan(key)

    def _verdicts_by_revision(
        self, family: str, stage: str
    ) -> dict[tuple[str, str], dict[str, Any]]:
        rows = self.read_verdicts(family, stage).to_dicts()
        return {(row["hub_id"], row["revision"]): row for row in rows}


def _apply_verdicts(
    row: dict[str, Any], verdicts: dict[str, dict[tuple[str, str], dict[str, Any]]]
) -> None:
    if row["status"] in (STATUS_REFUSED, STATUS_DELETED):
        return
    for stage, status in STAGES.items():
        verdict = verdicts[stage].get((row["hub_id"], row["revision"]))
        if verdict is None:
            return
        row["attempt"] = verdict["attempt"]
        if not verdict["accepted"]:
            row["status"] = STATUS_REFUSED
            row["reason"], row["detail"] = verdict["reason"], verdict["detail"]
            return
        row["status"] = status


def _repos_key(family: str) -> str:
    return f"ledger/repos/{check_family(family)}"


def _verdicts_key(family: str, stage: str) -> str:
    if stage not in STAGES:
        raise RefusedError(f"A stage is one of {', '.join(STAGES)}; got {stage!r}.")
    return f"ledger/verdicts/{stage}/{check_family(family)}"
