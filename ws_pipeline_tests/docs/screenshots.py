"""The documentation's pictures, from a home: python -m ws_pipeline_tests.docs.screenshots HOME."""

import sys
from pathlib import Path

from ws_pipeline_tests.docs.browser import compare_url, open_browser, open_page, serve_ui
from ws_pipeline_tests.docs.pages import ROOT

FOLDER = ROOT / "docs" / "images"
SETTLE_MS = 15_000
"""Graphs and charts draw themselves after the page has loaded."""


def take(home: Path) -> None:
    FOLDER.mkdir(exist_ok=True)
    with serve_ui(home) as (dagster, mlflow), open_browser() as browser:
        pages = {
            "lineage": f"{dagster}/asset-groups",
            "partitions": f"{dagster}/assets/tokens/shards?view=partitions",
            "runs": f"{dagster}/runs",
            "compare": compare_url(mlflow, home),
            "report": (home / "report" / "report.html").as_uri(),
        }
        for name, url in pages.items():
            with open_page(browser, url) as page:
                page.wait_for_timeout(SETTLE_MS)
                page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    take(Path(sys.argv[1]).resolve())
