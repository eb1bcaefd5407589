import re

import pytest

from ws_pipeline.cli.app import run
from ws_pipeline.definitions import defs
from ws_pipeline.errors import Reason
from ws_pipeline.recipes.catalog import RECIPE_NAMES
from ws_pipeline_tests.docs.pages import FOLDER, MAX_BYTES, MAX_TOTAL_BYTES, ROOT, find_commands

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


def test_pictures_are_small_and_each_is_shown() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*")}
    assert max(sizes.values()) <= MAX_BYTES
    assert sum(sizes.values()) <= MAX_TOTAL_BYTES
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    text = "".join(page.read_text() for page in pages)
    assert {name for name in sizes if f"images/{name})" not in text} == set()


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} names {target}"
