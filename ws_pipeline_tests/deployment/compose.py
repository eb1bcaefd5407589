"""docker/compose.yaml as it is, and the same services as processes on loopback.

No container engine is needed: names of services become 127.0.0.1, ports become free ones, and the
image's folders become folders of the test. Everything else (commands, environment, order, health
checks) is read from the file.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"


def read_compose(variables: Mapping[str, str], name: str = "compose.yaml") -> dict[str, Any]:
    """The file with its variables filled in after parsing, as compose does it."""
    parsed = yaml.safe_load((DOCKER / name).read_text())
    return dict(_interpolate_all(parsed, variables))


def _interpolate_all(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate_all(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate_all(item, variables) for item in value]
    return interpolate(value, variables) if isinstance(value, str) else value


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${NAME:?message}`` and ``${NAME:-default}``; an unset first one raises."""

    def replace(match: re.Match[str]) -> str:
        name, operator, operand = match.groups()
        if variables.get(name):
            return variables[name]
        if operator == ":?":
            raise KeyError(operand)
        return operand or ""

    return re.sub(r"\$\{(\w+)(?:(:[?-])([^}]*))?\}", replace, text)


@dataclass(kw_only=True)
class Translation:
    """From the network and the folders of containers to those of this machine."""

    services: frozenset[str]
    ports: dict[str, int]
    folders: Mapping[str, Path]
    programs: Path
    shortcuts: Mapping[str, str] = field(default_factory=dict)

    def text(self, text: str) -> str:
        """Translate one word of a command, or one value of the environment."""
        for folder, path in self.folders.items():
            text = re.sub(rf"(?<![\w/.]){folder}(?=/|$)", str(path), text)
        names = "|".join(sorted(self.services))
        text = re.sub(rf"(?<![\w.-])({names}):(?=\d)", "127.0.0.1:", text)
        text = re.sub(rf"(?<=@)({names})(?=:)", "127.0.0.1", text)
        text = re.sub(rf"^(-ip=)?({names}|0\.0\.0\.0)$", r"\g<1>127.0.0.1", text)
        text = text.replace("=0.0.0.0", "=127.0.0.1")
        return re.sub(r"(?<!\d)(\d{4})(?!\d)", self._port, text)

    def _port(self, match: re.Match[str]) -> str:
        return str(self.ports.get(match.group(), match.group()))

    def command(self, words: str | list[str]) -> list[str]:
        """Translate a command; the first word is one of the environment's own programs."""
        words = shlex.split(words) if isinstance(words, str) else list(words)
        program, *rest = (self.shortcuts.get(word, word) for word in words)
        own = self.programs / program
        return [str(own) if own.exists() else program, *(self.text(word) for word in rest)]

    def environment(self, values: Mapping[str, str]) -> dict[str, str]:
        """Translate a service's environment."""
        return {name: self.text(str(value)) for name, value in values.items()}
