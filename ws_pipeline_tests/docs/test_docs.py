import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ws_pipeline.cli.app import run
from ws_pipeline.definitions import defs
from ws_pipeline.errors import Reason
from ws_pipeline.recipes.catalog import RECIPE_NAMES
from ws_pipeline_tests.docs.pages import PAGES, ROOT, find_commands, read_blocks

CODE = re.compile(r"`([a-z0-9_/-]+)`")


def table_codes(page: str) -> set[str]:
    """The codes in the first cell of the rows of a page's tables."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    return {code for row in rows for code in CODE.findall(row.split("|")[1])}


def test_every_reason_code_is_explained_and_no_other() -> None:
    assert table_codes("docs/reference/reason-codes.md") == {str(reason) for reason in Reason}


def test_every_recipe_is_listed_and_no_other() -> None:
    assert table_codes("docs/reference/recipes.md") == set(RECIPE_NAMES)


def test_every_asset_is_listed_and_no_other() -> None:
    keys = defs().resolve_asset_graph().get_all_asset_keys()
    assert table_codes("docs/reference/assets.md") == {key.to_user_string() for key in keys}


@pytest.mark.parametrize(("page", "arguments"), list(find_commands()))
def test_the_command_of_a_page_has_these_options(
    page: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--help"]) == 0  # options are parsed before help is shown
    capsys.readouterr()


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} names {target}"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_pages_run_as_they_stand(tmp_path: Path) -> None:
    """What a reader would do: all marked blocks, in one folder, one after the other."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "ws-pipeline").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m ws_pipeline.cli "$@"\n'
    )
    (binaries / "ws-pipeline").chmod(0o755)
    paths = os.pathsep.join((str(binaries), os.environ["PATH"]))
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)}
    folder = tmp_path / "reader"
    folder.mkdir()
    for page in PAGES:
        blocks = [block for block in read_blocks(page) if block.language]
        assert blocks, f"{page} has nothing to run"
        script = "\n".join(block.text for block in blocks if block.language == "python")
        shell = "set -eu\n" + "\n".join(b.text for b in blocks if b.language == "bash")
        for command in (["sh", "-c", shell], [sys.executable, "-c", script]):
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{page}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
