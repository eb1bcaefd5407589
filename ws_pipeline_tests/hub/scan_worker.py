"""A process that scans a hub into a store, so that a test can kill it.

``python -m ws_pipeline_tests.hub.scan_worker ENDPOINT STORE DAY KIND``: exit code 0 when the book
is as of that day.
"""

import sys
from pathlib import Path

from ws_pipeline_tests.hub.scan_hubs import open_book, scan


def main(endpoint: str, store: str, day: str, kind: str) -> None:
    """Scan once."""
    scan(endpoint, open_book(Path(store)), day=int(day), full=kind == "full")


if __name__ == "__main__":
    main(*sys.argv[1:])
