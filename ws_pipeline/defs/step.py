"""The frame around every asset's body: provenance at its start, counts and versions at its end.

Belongs here: what all assets record alike. Does not: what one of them does. Reads the event log.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from ws_pipeline.defs.digests import digest
from ws_pipeline.defs.provenance import CONFIG_TAG, INPUTS_TAG, RETRY_TAG, VersionReader
from ws_pipeline.errors import Reason
from ws_pipeline.hub.repo import TRANSIENT_REASONS, frame_digest
from ws_pipeline.storage.tables import TableStore

RETRYABLE = frozenset(
    {
        Reason.UNREACHABLE,
        Reason.DOWNLOAD_FAILED,
        Reason.SHA256_MISMATCH,
        Reason.NO_SPACE,  # files whose tokens are stored make room meanwhile
        Reason.MISSING_INPUT,
    }
)
"""Reasons that repetition may cure: a row with one makes its partition stale.

Gated, private and disabled repos are asked again too whenever their family runs, but they are no
reason to run it: when a hub opens one, its listing says so and the ledger's version moves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One run of one asset partition."""

    context: dg.AssetExecutionContext
    started_seconds: float
    input_versions: Mapping[str, str]

    @classmethod
    def begin(cls, context: dg.AssetExecutionContext) -> "Step":
        """Note the input versions before anything is read: what changes meanwhile stays stale."""
        key = context.asset_key
        partition = context.partition_key if context.has_partition_key else None
        inputs = context.assets_def.asset_deps[key]
        versions = VersionReader(instance=context.instance).input_versions(key, partition, inputs)
        return cls(context=context, started_seconds=time.monotonic(), input_versions=versions)

    @property
    def partition(self) -> str:
        """The partition's key, or ""."""
        return self.context.partition_key if self.context.has_partition_key else ""

    def finish(
        self,
        frame: pl.DataFrame | None = None,
        *,
        config_digest: str,
        data_version: str = "",
        num_processed: int | None = None,
        num_reused: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> dg.MaterializeResult[Any]:
        """Hand back the table with everything that is recorded of a step.

        Args:
            frame: The asset's table; None for one that keeps its tensors elsewhere.
            config_digest: Of the configs that the body read beside its inputs.
            data_version: Of what was made; the table's own when empty.
            num_processed: Rows that were worked on. None: what the column `reused` says; a table
                without one is made as a whole (a result, a report) and counts no rows.
            num_reused: Rows that were taken over; goes with `num_processed`.
            metadata: More to show.
        """
        if num_processed is not None:
            counts = {"num_processed": num_processed, "num_reused": num_reused}
        else:
            counts = count_work(frame)
        tags = {
            INPUTS_TAG: digest(dict(self.input_versions)),
            CONFIG_TAG: config_digest,
            RETRY_TAG: str(count_retryable(frame)),
        }
        version = data_version or table_version(_require(frame), self.partition)
        value: dict[str, Any] = {} if frame is None else {"value": frame}
        return dg.MaterializeResult(
            metadata={
                **counts,
                "seconds": round(time.monotonic() - self.started_seconds, 2),
                **count_verdicts(frame),
                **(metadata or {}),
            },
            data_version=dg.DataVersion(version),
            tags=tags,
            **value,
        )


def count_work(frame: pl.DataFrame | None) -> dict[str, int]:
    """Rows worked on, taken over, and asked again because their verdict cannot be stored."""
    if frame is None or "reused" not in frame.columns:
        return {}
    asked_again = frame["reason"].is_in([str(reason) for reason in TRANSIENT_REASONS])
    num_reused = int(frame["reused"].sum())
    num_retried = int((asked_again & ~frame["reused"]).sum())
    return {
        "num_processed": frame.height - num_reused - num_retried,
        "num_reused": num_reused,
        "num_retried": num_retried,
    }


def table_version(frame: pl.DataFrame, partition: str) -> str:
    """The data version of a table; the partition's name keeps two empty families apart."""
    return digest([partition, frame_digest(frame)])


def count_verdicts(frame: pl.DataFrame | None) -> dict[str, Any]:
    """Accepted and refused rows of a stage's table, by reason as numbers and as Markdown.

    Each reason is a number of its own, so that Dagster plots it over the materialisations.
    """
    if frame is None or not {"accepted", "reason"} <= set(frame.columns):
        return {}
    refused = frame.filter(~pl.col("accepted"))
    return {
        "num_accepted": frame.height - refused.height,
        "num_refused": refused.height,
        "drop_reasons": dg.MetadataValue.md(reasons_table(refused)),
        **plot_reasons(refused["reason"].value_counts(name="num_repos")),
    }


def plot_reasons(counts: pl.DataFrame) -> dict[str, int]:
    """One number for each reason (``reason``, ``num_repos``), summed over stages."""
    sums = counts.group_by("reason").agg(pl.col("num_repos").sum()).sort("reason")
    return {f"left_out_{reason}": int(number) for reason, number in sums.rows()}


def reasons_table(refused: pl.DataFrame) -> str:
    """A Markdown table of reason, count and one example repo."""
    if refused.is_empty():
        return "nothing was refused"
    counts = (
        refused.group_by("reason")
        .agg(pl.len().alias("repos"), pl.col("repo_id").sort().first().alias("for example"))
        .sort("repos", "reason", descending=[True, False])
    )
    return markdown_table(counts)


def markdown_table(frame: pl.DataFrame) -> str:
    """A small frame as Markdown; a bar in a value would end its cell, so it becomes a slash."""
    rows = [frame.columns, ["---"] * frame.width, *frame.rows()]
    cells = [[str(value).replace("|", "/").replace("\n", " ") for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def count_retryable(frame: pl.DataFrame | None) -> int:
    """Rows whose refusal may be cured by another attempt."""
    if frame is None or "reason" not in frame.columns:
        return 0
    return int(frame["reason"].is_in([str(reason) for reason in RETRYABLE]).sum())


def count_known(frame: pl.DataFrame, tables: TableStore, key: str) -> int:
    """How many models of a table (by hub id and revision) its stored predecessor had."""
    columns = ["hub_id", "revision"]
    if not tables.exists(key):
        return 0
    before = tables.scan(key).select(columns).unique().collect()
    return frame.select(columns).join(before, on=columns, how="semi").height


def _require(frame: pl.DataFrame | None) -> pl.DataFrame:
    if frame is None:
        raise ValueError("a step without a table has to name its data version")
    return frame
