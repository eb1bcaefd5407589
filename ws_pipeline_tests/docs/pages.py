"""The fenced blocks of the documentation, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "docs/tutorial.md",
    "docs/how-to/researcher.md",
    "docs/how-to/hub-analyst.md",
    "docs/how-to/operator.md",
)
"""In the order in which a reader comes to them; their marked blocks run on one home."""

FOLDER = ROOT / "docs" / "images"
MAX_BYTES = 120_000
MAX_TOTAL_BYTES = 500_000
"""Of pictures: everybody who clones the project gets all of them."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s{2,}#.*$|\s{2,}[a-z].*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block: ``bash`` and ``python`` are run, one without a language is read."""

    page: str
    language: str
    text: str


def read_blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page=page, language=match[1], text=match[2]) for match in _FENCE.finditer(text)]


def find_commands() -> Iterator[tuple[str, list[str]]]:
    """Every ``ws-pipeline`` line of every page, as (page, arguments)."""
    pages = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
    for page in pages:
        for block in read_blocks(page):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(_COMMENT.sub("", line), comments=True)
                if words[:1] == ["ws-pipeline"]:
                    yield page, words[1:]
