"""The documentation's pictures: python -m ws_pipeline_tests.docs.screenshots HOME [NAME]...

HOME is that of a finished ``ws-pipeline demo`` with a second training: two runs to
compare. Each picture is a PNG of few colours, within MAX_BYTES.
"""

import io
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from ws_pipeline_tests.docs.browser import (
    DESKTOP,
    compare_url,
    open_browser,
    open_page,
    serve_ui,
)
from ws_pipeline_tests.docs.pages import FOLDER, MAX_BYTES, MAX_TOTAL_BYTES

COLORS = (128, 64, 32, 16)
WIDTH = 1100
"""Pixels of a picture; a page of GitHub shows about 1000."""
SETTLE_MS = 15_000
"""Graphs and charts draw themselves after the page has loaded."""

Prepare = Callable[[Page], None]
"""Brings a page into the state of its picture."""

SIZES = {"lineage": (1900, 1000), "plots": (1280, 800)}
"""Of the window, where it is not a desktop's."""


def take(home: Path, only: Collection[str] = ()) -> None:
    """Write every picture anew, or some of them."""
    with serve_ui(home) as ui, open_browser() as browser:
        take_pages(ui, browser, home, only)


def take_pages(
    ui: tuple[str, str], browser: Browser, home: Path, only: Collection[str] = ()
) -> None:
    """Write the pictures of pages that are served already."""
    FOLDER.mkdir(exist_ok=True)
    dagster, mlflow = ui
    report = home / "report"
    pages: dict[str, tuple[str, Prepare | None]] = {
        "lineage": (f"{dagster}/asset-groups", expand_groups),
        "plots": (f"{dagster}/assets/corpus/splits?view=overview", show_plots),
        "partition": (f"{dagster}/assets/tokens/shards?view=partitions", show_partition),
        "compare": (compare_url(mlflow, home), close_assistant),
        "report": ((report / "report.html").as_uri(), show_figure),
        "atlas": ((report / "atlas.html").as_uri(), None),
    }
    for name, (url, prepare) in pages.items():
        if only and name not in only:
            continue
        with open_page(browser, url, SIZES.get(name, DESKTOP)) as page:
            page.wait_for_timeout(SETTLE_MS)
            if prepare is not None:
                prepare(page)
                page.wait_for_timeout(SETTLE_MS)
            picture = shrink(page.screenshot())
        (FOLDER / f"{name}.png").write_bytes(picture)
    total = sum(path.stat().st_size for path in FOLDER.glob("*.png"))
    assert total <= MAX_TOTAL_BYTES, f"{total} bytes of pictures; {MAX_TOTAL_BYTES} are allowed"


def show_figure(page: Page) -> None:
    """Show the report's first figure with its heading."""
    figure = page.locator(".figure").first
    figure.evaluate("element => (element.closest('section') ?? element).scrollIntoView()")


def expand_groups(page: Page) -> None:
    """Show the assets of the graph, not only its groups, on the whole page."""
    page.get_by_text("Hide navigation").click()
    page.keyboard.press("Alt+E")


def show_plots(page: Page) -> None:
    """Show an asset's numbers over its materialisations."""
    page.get_by_role("button", name="Plots").click()
    heading = page.get_by_text("Metadata", exact=True).first
    heading.evaluate("element => element.scrollIntoView({block: 'start'})")


def show_partition(page: Page) -> None:
    """Open one family."""
    page.locator("a, div").filter(has_text=re.compile(r"^(cnn|mlp|openwakeword)$")).last.click()


def close_assistant(page: Page) -> None:
    """Leave the page to the comparison."""
    page.get_by_role("button", name=re.compile("close", re.IGNORECASE)).first.click()


def shrink(png: bytes) -> bytes:
    """Return a picture as PNG of as many colours as MAX_BYTES allows.

    Raises:
        ValueError: Even the fewest colours take too much.
    """
    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    height = round(image.height * WIDTH / image.width)
    image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    for colors in COLORS:
        buffer = io.BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    raise ValueError(f"a picture takes {buffer.tell()} bytes in {COLORS[-1]} colours")


if __name__ == "__main__":
    take(Path(sys.argv[1]).resolve(), sys.argv[2:])
