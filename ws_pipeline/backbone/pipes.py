"""What the trainer tells Dagster, over Dagster Pipes. Does I/O only when Dagster launched it.

What it is: messages while training, one materialisation at its end. What it is not: needed; outside
of Dagster, messages go to the process's own log. `dagster_pipes` is imported when Dagster is there,
on the main process only, since all processes inherit the variables that announce it.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"
"""Set by Dagster for the processes that it launches."""

NUM_MESSAGES = 20
"""Progress lines of one training in Dagster's log; each is an event in its database."""


class DagsterReport:
    """The way to Dagster; an observer of the training.

    Args:
        context: A `PipesContext`, or None outside of Dagster.
        num_steps: Of the training, to space messages by.
    """

    def __init__(self, context: Any, *, num_steps: int) -> None:
        self._context = context
        self._num_steps = num_steps
        self._spacing = max(1, num_steps // NUM_MESSAGES)
        self._next = 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Send a line of progress if the last one is long enough ago."""
        if step < self._next and step != self._num_steps:
            return
        self._next = step + self._spacing
        self.message(progress_line(step, self._num_steps, values))

    def message(self, text: str) -> None:
        """Write a line to Dagster's log, or to our own where there is no Dagster."""
        (logger if self._context is None else self._context.log).info(text)

    def failed(self, reason: str, text: str, *, permanent: bool) -> None:
        """Say why: the launcher's exit code is 1 whatever the trainer's was.

        Args:
            reason: Code of `ws_pipeline.errors.Reason`.
            text: One sentence.
            permanent: Whether another attempt would end the same way.
        """
        if self._context is not None:
            self._context.report_custom_message(
                {"event": "error", "reason": reason, "message": text, "permanent": permanent}
            )

    def materialized(self, metadata: Mapping[str, Any], *, data_version: str) -> None:
        """Report the model.

        Args:
            metadata: Values by name; a name that ends in `_url` is shown as a link.
            data_version: The sha256 of the weights.
        """
        if self._context is None:
            return
        typed = {
            name: {"raw_value": value, "type": "url" if name.endswith("_url") else "__infer__"}
            for name, value in metadata.items()
            if value is not None and value != ""
        }
        self._context.report_asset_materialization(metadata=typed, data_version=data_version)


def progress_line(step: int, num_steps: int, values: Mapping[str, float]) -> str:
    """Return the metrics of a step as one line."""
    shown = [
        f"{label} {values[name]:{form}}"
        for name, label, form in (
            ("train/loss", "loss", ".4f"),
            ("train/loss_reconstruction", "reconstruction", ".4f"),
            ("val/loss_reconstruction", "validation", ".4f"),
            ("train/tokens_per_second", "tokens/s", ",.0f"),
        )
        if name in values
    ]
    return f"step {step}/{num_steps}: " + ", ".join(shown)


@contextmanager
def open_report(*, num_steps: int, main: bool) -> Iterator[DagsterReport]:
    """Open the way to Dagster for the time of a training."""
    if not main or PIPES_VARIABLE not in os.environ:
        yield DagsterReport(None, num_steps=num_steps)
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as context:
        yield DagsterReport(context, num_steps=num_steps)
