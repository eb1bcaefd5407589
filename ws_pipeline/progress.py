"""Whether progress bars are drawn, the same answer for every process of a command. No other I/O.

Dagster passes what a step prints through a pipe, so a bar inside a step cannot see that a terminal
is at the end of it. The command line can, and says so in the environment, which the trainer's
processes inherit.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "WS_PROGRESS"


def hides_bars() -> bool | None:
    """Return tqdm's ``disable``: False in :func:`show_bars`, else None, as stderr is found."""
    return False if os.environ.get(VARIABLE) == "1" else None


@contextmanager
def show_bars() -> Iterator[None]:
    """Draw bars in this process and in those that it starts, whatever stderr looks like to them."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
