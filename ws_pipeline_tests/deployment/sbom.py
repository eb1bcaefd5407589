"""What is installed, as a CycloneDX bill of materials, on standard output.

Follows the requirements of the project from package to package; what else lies in the environment
is not part of it. Needs no network.
"""

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "ws-pipeline"
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def make_bom(extras: tuple[str, ...] = ("deploy",)) -> Bom:
    """The project and everything that it needs, with extras."""
    bom = Bom()
    components = {}
    needed: dict[str, set[str]] = {}
    waiting = [(PROJECT, frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform
        if name not in components:
            components[name] = describe(found)
        needs = read_project(wanted) if name == PROJECT else requirements(found.requires, wanted)
        for other, other_extras in needs:
            needed.setdefault(name, set()).add(other)
            if other not in components:
                waiting.append((other, other_extras))
    root = components[PROJECT]
    bom.metadata.component = root
    for name, component in components.items():
        if component is not root:
            bom.components.add(component)
        known = [components[n] for n in sorted(needed.get(name, ())) if n in components]
        bom.register_dependency(component, known)
    return bom


def read_project(extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """What the project needs, as its file says it now."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    texts = [*project["dependencies"]]
    for extra in sorted(extras):
        texts += project["optional-dependencies"][extra]
    yield from requirements(texts, extras)


def requirements(
    texts: list[str] | None, extras: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    """Names and extras of what is needed here."""
    for text in texts or []:
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


UNSTATED = {"huey": "MIT", "skops": "MIT"}
"""Licences that their packages bring as a file only; read there."""


def licence_of(found: Distribution) -> str:
    """What a package states of its licence: the expression, else the classifiers, else a word."""
    stated = found.metadata.get("License-Expression")
    classifiers = found.metadata.get_all("Classifier") or []
    named = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ")]
    known = " OR ".join(name for name in named if name != "OSI Approved")
    words = (found.metadata.get("License") or "").splitlines()
    own = UNSTATED.get(canonicalize_name(found.metadata["Name"]), "")
    return stated or known or own or (words[0] if words else "")


def describe(found: Distribution) -> Component:
    """One package."""
    name = canonicalize_name(found.metadata["Name"])
    purl = PackageURL("pypi", None, name, found.version)
    licence = licence_of(found)
    return Component(
        licenses=[DisjunctiveLicense(name=licence)] if licence else [],
        type=ComponentType.APPLICATION if name == PROJECT else ComponentType.LIBRARY,
        name=name,
        version=found.version,
        bom_ref=str(purl),
        purl=purl,
    )


if __name__ == "__main__":
    sys.stdout.write(JsonV1Dot6(make_bom()).output_as_string(indent=1))
