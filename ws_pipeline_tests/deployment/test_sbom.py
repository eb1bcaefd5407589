"""The bill of materials names what is pinned, nothing that is not, and under which licences."""

import json
import re
from pathlib import Path

from cyclonedx.output.json import JsonV1Dot6
from packaging.utils import canonicalize_name

from ws_pipeline_tests.deployment.sbom import make_bom

PINS = Path(__file__).parents[2] / "constraints.txt"


def test_everything_that_is_installed_for_the_project_is_pinned() -> None:
    lines = [line.split("==") for line in PINS.read_text().splitlines() if "==" in line]
    pins = {canonicalize_name(name): version for name, version in lines}
    bom = json.loads(JsonV1Dot6(make_bom()).output_as_string())
    found = {part["name"]: part["version"].split("+")[0] for part in bom["components"]}
    assert len(found) > 80
    assert {"dagster", "torch", "dagster-postgres", "psycopg2-binary"} <= set(found)
    not_pinned = {name for name in found if name not in pins and not is_pinned_elsewhere(name)}
    assert not_pinned == set()
    assert {n: v for n, v in found.items() if n in pins and pins[n].split("+")[0] != v} == {}


PERMISSIVE = re.compile(
    r"Apache|MIT|BSD|ISC|PSF|Python Software Foundation|Zlib|CC0|BSL-1.0|CNRI|LLVM"
)
WEAK_COPYLEFT = {
    "certifi": "MPL",
    "tqdm": "MPL",
    "psycopg2-binary": "LGPL",
}
"""Used as they are, as their licences allow: of these a change to their own files would be owed."""


def test_every_licence_is_stated_and_lets_the_project_be_passed_on() -> None:
    bom = json.loads(JsonV1Dot6(make_bom()).output_as_string())
    stated = {
        part["name"]: " ".join(licence["license"]["name"] for licence in part.get("licenses", []))
        for part in bom["components"]
    }
    own = {name for name in stated if name.startswith(("nvidia-", "cuda-"))}  # of the CUDA build
    assert [name for name, licence in stated.items() if not licence and name not in own] == []
    for name, licence in stated.items():
        if name in WEAK_COPYLEFT:
            assert WEAK_COPYLEFT[name] in licence
        elif name not in own:
            assert PERMISSIVE.search(licence), (name, licence)
            assert not re.search(r"\bA?GPL|General Public", licence), (name, licence)


def is_pinned_elsewhere(name: str) -> bool:
    """Libraries of the CUDA build of torch, which pins them itself, and what venv brings."""
    return name.startswith(("nvidia-", "cuda-")) or name in {"triton", "setuptools"}
