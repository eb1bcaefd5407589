"""What one step of a refresh did, and where that is told. No I/O, no Dagster."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """What one asset (of one partition) did in one refresh.

    Attributes:
        asset: `hub/repos` and so on.
        partition: Family, recipe or zoo; "" for an asset without partitions.
        state: `done`, `unchanged` (nothing was stale, so it did not run) or `failed`.
        num_rows: Rows of the table (repos, models, results).
        num_processed: Rows that were worked on in this run.
        num_reused: Rows whose stored verdict was taken over.
        seconds: Wall time; 0 for an unchanged one.
        detail: The error in one sentence when it failed; a short remark otherwise.
        reason: Code of :class:`ws_pipeline.errors.Reason` when it failed.
    """

    asset: str
    partition: str = ""
    state: str
    num_rows: int = 0
    num_processed: int = 0
    num_reused: int = 0
    seconds: float = 0.0
    detail: str = ""
    reason: str = ""


@runtime_checkable
class Reporter(Protocol):
    """Where progress goes: the CLI's console, or nowhere."""

    def started(self, title: str) -> None:
        """A step that may take longer than a second begins."""

    def finished(self, outcome: StepOutcome) -> None:
        """A step ended."""


class SilentReporter:
    """A reporter that drops everything."""

    def started(self, title: str) -> None:
        """Drop it."""

    def finished(self, outcome: StepOutcome) -> None:
        """Drop it."""
