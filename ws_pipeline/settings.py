"""The settings of an installation: what they are, and the file that a person writes them into.

``ws-pipeline.toml`` in the working directory, or the file that $WS_CONFIG names, stands for
environment variables that are not set: :func:`apply_file` sets them once, at the entry, so that all
code below reads the environment alone and every process that is started inherits the same. An
option wins over the environment, the environment over the file, the file over the default.

What it is not: a place for secrets, or for what a recipe decides. Reads one file and sets the
environment when it is told to.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ws_pipeline.errors import ConfigError, MissingInputError, Reason

FILE_NAME = "ws-pipeline.toml"
FILE_VARIABLE = "WS_CONFIG"
HOME_VARIABLE = "WS_HOME"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
EXECUTOR_VARIABLE = "WS_EXECUTOR"
"""In the environment of a code location; empty means `in_process`."""
DEFAULT_RECIPE = "tiny"
"""Whose policies the corpus follows, and what is trained, unless somebody names another."""
RECIPE_VARIABLE = "WS_RECIPE"
PROCESSES_VARIABLE = "WS_PROCESSES"

_SECRET_KEY = re.compile(r"token|secret|passw|credential|(^|_)key($|_)", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^hf_\w{8,}|[?&](X-Amz-)?(Signature|Credential|token)=", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One thing that an installation may set.

    Attributes:
        key: In the file.
        variable: In the environment.
        default: In words.
        kind: ``path``, ``place`` (a path or a URL), ``text`` or ``number`` (a positive integer).
    """

    key: str
    variable: str
    default: str
    kind: str = "text"


SETTINGS = (
    Setting(key="home", variable=HOME_VARIABLE, default="./.ws", kind="path"),
    Setting(key="store", variable="WS_STORE", default="HOME/store", kind="place"),
    Setting(key="hub_endpoint", variable="WS_HUB_ENDPOINT", default="the embedded hub, HOME/hub"),
    Setting(key="data", variable="WS_DATA", default="HOME/data", kind="path"),
    Setting(key="mlflow_tracking_uri", variable=TRACKING_VARIABLE, default="SQLite in HOME/mlflow"),
    Setting(key="recipe", variable=RECIPE_VARIABLE, default=DEFAULT_RECIPE),
    Setting(key="processes", variable=PROCESSES_VARIABLE, default="1", kind="number"),
    Setting(key="executor", variable=EXECUTOR_VARIABLE, default="in_process"),
)
_BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}

_APPLIED: ContextVar[Mapping[str, Path]] = ContextVar("_APPLIED")
"""Variables that a file has set, and which file."""


def apply_file() -> tuple[str, ...]:
    """Set the variables that the file has and the environment lacks; their names.

    Raises:
        ConfigError: As :func:`read_file`.
        MissingInputError: As :func:`find_file`.
    """
    path = find_file()
    values = read_file(path) if path is not None else {}
    new = {name: value for name, value in values.items() if not os.environ.get(name)}
    os.environ.update(new)
    _APPLIED.set({name: path for name in new if path is not None})
    return tuple(new)


def find_source(variable: str) -> str:
    """Return where a variable's value comes from: a file's name, environment or default."""
    path = _APPLIED.get({}).get(variable)
    if path is not None:
        return path.name
    return "environment" if os.environ.get(variable) else "default"


def find_file() -> Path | None:
    """Return the file that $WS_CONFIG names, else the working directory's, if there is one.

    Raises:
        MissingInputError: The file that $WS_CONFIG names is not there.
    """
    named = os.environ.get(FILE_VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.exists():
            raise MissingInputError(
                f"There is no file {named!r}, which ${FILE_VARIABLE} names; unset it, or name a "
                "file of settings."
            )
        return path
    path = Path.cwd() / FILE_NAME
    return path if path.exists() else None


def read_file(path: Path) -> dict[str, str]:
    """Read a file of settings as environment variables; relative paths are from its folder.

    Raises:
        ConfigError: It is no TOML, or has an unknown key, a value of another kind, or a secret.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); ${FILE_VARIABLE} names another file."
        ) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are
        raise ConfigError(f"{path} is no TOML: {error}. A line is: home = '/data/ws'.") from error
    checked = {key: _check(path, key, value) for key, value in found.items()}
    return {_BY_KEY[key].variable: value for key, value in checked.items()}


def default_recipe() -> str:
    """Return the recipe that counts where none is named: $WS_RECIPE, else tiny."""
    return os.environ.get(RECIPE_VARIABLE) or DEFAULT_RECIPE


def default_processes() -> int:
    """Return how many processes a training gets where nothing is said: $WS_PROCESSES, else 1.

    Raises:
        ConfigError: The variable is no positive integer.
    """
    text = os.environ.get(PROCESSES_VARIABLE) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{PROCESSES_VARIABLE} has to be an integer from 1 on; got {text!r}.")
    return int(text)


def hide_credentials(url: str) -> str:
    """Return a URL as it may be shown: without user, password and query."""
    parts = urlsplit(url)
    if "@" not in parts.netloc and not parts.query:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _check(path: Path, key: str, value: Any) -> str:
    """Return a value as the environment has it."""
    if key not in _BY_KEY:
        raise _refuse_key(path, key)
    setting = _BY_KEY[key]
    if setting.kind == "number":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{key} in {path} has to be an integer from 1 on; got {value!r}.")
        return str(value)
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ConfigError(f"{key} in {path} has to be text in quotes; got {kind} {value!r}.")
    if not value.strip():
        raise ConfigError(f"{key} in {path} is empty; leave the line out for the default.")
    if _SECRET_VALUE.search(value) or "@" in urlsplit(value).netloc:
        raise _refuse_secret(path, key)  # without the value
    is_path = setting.kind == "path" or (setting.kind == "place" and "://" not in value)
    return str(path.parent / Path(value).expanduser()) if is_path else value


def _refuse_key(path: Path, key: str) -> ConfigError:
    if _SECRET_KEY.search(key):
        return _refuse_secret(path, key)
    variables = {setting.variable.lower(): setting.key for setting in SETTINGS}
    close = difflib.get_close_matches(key.lower(), [*_BY_KEY, *variables], n=1, cutoff=0.5)
    hint = f" Did you mean {variables.get(close[0], close[0])!r}?" if close else ""
    return ConfigError(
        f"There is no setting {key!r}, which {path} has.{hint} The settings are "
        f"{', '.join(_BY_KEY)}.",
        reason=Reason.UNKNOWN_NAME,
    )


def _refuse_secret(path: Path, key: str) -> ConfigError:
    return ConfigError(
        f"{key} in {path} is or holds a secret, and files are shared; take it out, and set HF_TOKEN"
        ", MLFLOW_TRACKING_PASSWORD or AWS_SECRET_ACCESS_KEY in the environment."
    )
