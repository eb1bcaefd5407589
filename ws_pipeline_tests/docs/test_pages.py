"""What a reader of the tutorial and the guides does, and what they then see in a browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ws_pipeline_tests.conftest import CALLERS_VARIABLES
from ws_pipeline_tests.docs.browser import (
    CHROMIUM,
    DESKTOP,
    PHONE,
    compare_url,
    open_browser,
    open_page,
    serve_ui,
)
from ws_pipeline_tests.docs.pages import PAGES, ROOT, read_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="this machine has no Chromium")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who ran every marked block of every page, one after the other."""
    folder = tmp_path_factory.mktemp("reader")
    binaries = tmp_path_factory.mktemp("bin")
    script = binaries / "ws-pipeline"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ws_pipeline.cli "$@"\n')
    script.chmod(0o755)
    paths = os.pathsep.join((str(binaries), os.environ["PATH"]))
    own = {name: value for name, value in os.environ.items() if name not in CALLERS_VARIABLES}
    environment = {**own, "PATH": paths, "PYTHONPATH": str(ROOT)}
    for page in PAGES:
        blocks = read_blocks(page)
        shell = "set -eu\n" + "\n".join(b.text for b in blocks if b.language == "bash")
        python = "\n".join(b.text for b in blocks if b.language == "python")
        assert len(shell) > 10, f"{page} has nothing to run"
        for command in (["sh", "-c", shell], [sys.executable, "-c", python]):
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def ui(reader: Path) -> Iterator[tuple[str, str]]:
    with serve_ui(reader / ".ws") as urls:
        yield urls


def test_the_pages_run_as_they_stand(reader: Path) -> None:
    assert (reader / "vectors.parquet").is_file()
    assert (reader / ".ws" / "report" / "report.html").is_file()


@needs_chromium
def test_the_asset_graph_shows_every_group(ui: tuple[str, str], browser: Browser) -> None:
    with open_page(browser, f"{ui[0]}/asset-groups") as page:
        for group in ("zoo", "hub", "weights", "tokens", "corpus", "backbone", "evaluation"):
            expect(page.get_by_text(group, exact=True).first).to_be_visible()


@needs_chromium
def test_families_are_the_partitions_of_an_asset(ui: tuple[str, str], browser: Browser) -> None:
    with open_page(browser, f"{ui[0]}/assets/tokens/shards?view=partitions") as page:
        expect(page.get_by_text("Materialized (2)")).to_be_visible()
        for family in ("mlp", "cnn"):
            expect(page.get_by_text(family, exact=True).first).to_be_visible()


@needs_chromium
def test_a_partition_shows_its_numbers_and_its_first_rows(
    ui: tuple[str, str], browser: Browser
) -> None:
    url = f"{ui[0]}/assets/tokens/shards?view=partitions&partition=cnn"
    with open_page(browser, url) as page:
        for name in ("num_accepted", "num_params", "drop_reasons", "dagster/row_count"):
            expect(page.get_by_text(name, exact=True).first).to_be_visible()
        expect(page.get_by_text("preview", exact=True).first).to_be_visible()


@needs_chromium
def test_an_asset_explains_itself_and_plots_its_numbers(
    ui: tuple[str, str], browser: Browser
) -> None:
    with open_page(browser, f"{ui[0]}/assets/corpus/splits?view=overview") as page:
        for text in ("Lineage-disjoint train, val and test", "the repo's immutable id"):
            expect(page.get_by_text(text).first).to_be_visible()
        expect(page.get_by_text("follow_the_data").first).to_be_visible()
        page.get_by_role("button", name="Plots").click()
        for name in ("num_models", "num_left_out"):
            expect(page.get_by_text(name, exact=True).first).to_be_visible()
        expect(page.locator("canvas").first).to_be_visible()


@needs_chromium
def test_the_checks_of_an_asset_have_passed(ui: tuple[str, str], browser: Browser) -> None:
    with open_page(browser, f"{ui[0]}/assets/corpus/splits?view=checks") as page:
        for name in ("splits_share_nothing", "verdicts_and_corpus_agree"):
            expect(page.get_by_text(name).first).to_be_visible()
        expect(page.get_by_text("Failed")).to_have_count(0)


@needs_chromium
def test_a_model_leads_to_its_run_in_mlflow(ui: tuple[str, str], browser: Browser) -> None:
    url = f"{ui[0]}/assets/backbone/model?view=partitions&partition=tiny"
    with open_page(browser, url) as page:
        expect(page.get_by_text("train_loss", exact=True).first).to_be_visible()
        link = page.get_by_role("link", name="/#/experiments/").first
        expect(link).to_have_attribute("href", re.compile(r"^http.*/#/experiments/\d+/runs/\w+$"))


@needs_chromium
def test_a_launched_run_says_what_it_did(ui: tuple[str, str], browser: Browser) -> None:
    with open_page(browser, f"{ui[0]}/runs") as page:
        page.get_by_role("link", name="train_backbone").first.wait_for()
        expect(page.get_by_text("Success").first).to_be_visible()
        expect(page.get_by_text("Failure")).to_have_count(0)


@needs_chromium
def test_trainings_stand_side_by_side_in_mlflow(
    ui: tuple[str, str], browser: Browser, reader: Path
) -> None:
    with open_page(browser, compare_url(ui[1], reader / ".ws")) as page:
        expect(page.get_by_text("Comparing 2 Runs").first).to_be_visible()
        expect(page.get_by_text("training.num_steps").first).to_be_visible()


@needs_chromium
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["report", "atlas"])
def test_report_and_atlas_fit_the_screen_and_need_no_network(
    reader: Path, browser: Browser, name: str, size: tuple[int, int]
) -> None:
    report = reader / ".ws" / "report" / f"{name}.html"
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    expect(page.get_by_role("heading").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()
