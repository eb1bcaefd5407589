"""One bar for counts that grow, drawn where the command line wants bars. Prints to stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ws_pipeline.progress import hides_bars

DELAY_SECONDS = 0.5
"""What is done sooner needs no bar."""


@contextmanager
def count_bar(title: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield what shows (done, of how many; None where nobody knows)."""
    bar: tqdm[Any]
    with tqdm(desc=title, unit=unit, disable=hides_bars(), leave=False, delay=DELAY_SECONDS) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
