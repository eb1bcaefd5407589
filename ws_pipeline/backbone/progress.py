"""The progress bar of a training, on stderr, where there is a terminal. An observer. Does I/O."""

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from ws_pipeline.progress import hides_bars


class ProgressBar:
    """A bar over all steps of a job, resumed ones included.

    Args:
        num_steps: Of the job.
        main: Whether this process shows it.
    """

    def __init__(self, num_steps: int, *, main: bool) -> None:
        self._bar: "tqdm[Any]" = tqdm(
            total=num_steps, desc="backbone", unit="step", disable=hides_bars() if main else True
        )

    def start(self, step: int) -> None:
        """Begin at the step that was resumed from."""
        self._bar.update(step)
        self._bar.unpause()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Move to a step and show its losses."""
        shown = {
            label: f"{values[name]:.3f}"
            for name, label in (
                ("train/loss_reconstruction", "train"),
                ("val/loss_reconstruction", "val"),
            )
            if name in values
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)

    def message(self, text: str) -> None:
        """Sentences go to the log."""

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
