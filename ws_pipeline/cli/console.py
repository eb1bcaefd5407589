"""What people see: progress on stderr, results on stdout. Prints; decides nothing."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.markup import escape
from rich.segment import ControlType
from rich.table import Table

from ws_pipeline.defs.outcomes import StepOutcome
from ws_pipeline.progress import show_bars

FILE_WIDTH = 1000
"""Columns of a table that no terminal cuts: a piped row is one line."""
ERASE_LINE = Control((ControlType.ERASE_IN_LINE, 2))
STATE_MARKS = {"done": "[green]done[/green]", "failed": "[red]failed[/red]"}


def out() -> Console:
    """The console of results."""
    return Console(file=sys.stdout, soft_wrap=True, highlight=False)


def err() -> Console:
    """The console of progress and errors."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False)


def print_error(reason: str, sentence: str) -> None:
    """Print a refusal or a failure as one line."""
    line = " ".join(f"error[{reason}]: {sentence}".split())
    sys.stderr.write(line + "\n")


def print_json(value: object) -> None:
    """Print strict JSON: NaN becomes null, dates text."""
    from ws_pipeline.hub.server.metadata import to_json_value

    text = json.dumps(to_json_value(value), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Print rows, if there are any; numbers to the right."""
    cells = [list(row) for row in rows]
    if not cells:
        return
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        is_number = all(isinstance(row[index], (int, float)) for row in cells)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(escape(_show(value)) for value in row))
    wide().print(table)


def wide() -> Console:
    """The console of tables: as wide as the terminal, or as needed where the output is a file."""
    return Console(
        file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH
    )


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class ConsoleReporter:
    """Shows what runs now, and keeps a line for each step that did something.

    On a terminal, the bars of long steps are drawn below. Unchanged steps are counted, not listed:
    a second run has nothing else.
    """

    def __init__(self) -> None:
        self._console = err()
        self._bars = ExitStack()
        self._last_failure = ""
        self.num_unchanged = 0

    def __enter__(self) -> "ConsoleReporter":
        if self._console.is_terminal:
            self._bars.enter_context(show_bars())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clear_line()
        self._bars.close()
        if self.num_unchanged:
            self._console.print(f"unchanged  {self.num_unchanged} steps", style="dim")
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._console.print("interrupted; the same command goes on where it stopped")

    def _clear_line(self) -> None:
        if self._console.is_terminal:
            self._console.control(Control.move_to_column(0), ERASE_LINE)

    def started(self, title: str) -> None:
        """See ``operations.Reporter``. A bar or the outcome then takes the title's line."""
        if self._console.is_terminal:
            self._clear_line()
            self._console.print(escape(title), style="dim", end="")

    def finished(self, outcome: StepOutcome) -> None:
        """See ``operations.Reporter``."""
        if outcome.state == "unchanged":
            self.num_unchanged += 1
            return
        if outcome.state == "failed" and outcome.detail == self._last_failure:
            outcome = replace(outcome, detail="the same")  # as a full disk fails every step
        elif outcome.state == "failed":
            self._last_failure = outcome.detail
        self._clear_line()
        self._console.print(describe_outcome(outcome))


def describe_outcome(outcome: StepOutcome) -> str:
    """Return a step's line, in markup."""
    mark = STATE_MARKS.get(outcome.state, escape(outcome.state))
    name = outcome.asset + (f"[{outcome.partition}]" if outcome.partition else "")
    counts = f"{outcome.num_rows} rows" if outcome.num_rows else ""
    if outcome.num_processed or outcome.num_reused:
        counts += f", {outcome.num_processed} new, {outcome.num_reused} kept"
    parts = [mark, escape(name), counts, f"{outcome.seconds:.1f} s", escape(outcome.detail)]
    return "  ".join(part for part in parts if part)


def count_values(rows: Iterable[Mapping[str, Any]], key: str) -> dict[str, int]:
    """Count a column's values, most frequent first; "" is left out."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row[key])] = counts.get(str(row[key]), 0) + 1
    counts.pop("", None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
