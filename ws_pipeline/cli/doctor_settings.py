"""What `ws-pipeline doctor` says of the settings: each value, and where it comes from.

Reads the environment and the file of settings; never shows a token.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ws_pipeline.cli.arguments import find_home
from ws_pipeline.cli.finding import Finding
from ws_pipeline.errors import ConfigError
from ws_pipeline.settings import (
    EXECUTOR_VARIABLE,
    FILE_NAME,
    HOME_VARIABLE,
    PROCESSES_VARIABLE,
    RECIPE_VARIABLE,
    SETTINGS,
    Setting,
    default_processes,
    find_file,
    find_source,
    hide_credentials,
)


def check_settings(home: Path, endpoint: str) -> Iterator[Finding]:
    """Yield the file, every setting with its source, and whether there is a token.

    Args:
        home: In force.
        endpoint: The option; "" where there is none.
    """
    from ws_pipeline.hub.connection import ENDPOINT_VARIABLE, TOKEN_VARIABLE

    path = find_file()
    where = str(path) if path else f"no {FILE_NAME} in {Path.cwd()}, and $WS_CONFIG names none"
    yield Finding(what="settings", state="ok", detail=where)
    options = {ENDPOINT_VARIABLE: endpoint} if endpoint else {}
    if home != find_home(None, options=False):
        options[HOME_VARIABLE] = str(home)
    for setting in SETTINGS:
        yield _describe(setting, options.get(setting.variable, ""))
    detail = f"{TOKEN_VARIABLE} is set" if os.environ.get(TOKEN_VARIABLE) else "none"
    remedy = (
        "" if detail != "none" else f"public repos need none; for gated ones set {TOKEN_VARIABLE}"
    )
    yield Finding(what="token", state="ok", detail=detail, remedy=remedy)


def _describe(setting: Setting, option: str) -> Finding:
    value = option or os.environ.get(setting.variable) or setting.default
    source = "option" if option else find_source(setting.variable)
    detail = f"{hide_credentials(value)}, from {source}" if source != "default" else value
    try:
        _validate(setting, value)
    except ConfigError as error:
        return Finding(what=setting.key, state="fail", detail=detail, remedy=str(error))
    return Finding(what=setting.key, state="ok", detail=detail)


def _validate(setting: Setting, value: str) -> None:
    """Refuse a value that the first command to use it would refuse.

    Raises:
        ConfigError: Says what it has to be.
    """
    if setting.variable == PROCESSES_VARIABLE:
        default_processes()
    elif setting.variable == RECIPE_VARIABLE:
        from ws_pipeline.recipes import recipe

        recipe(value)
    elif setting.variable == EXECUTOR_VARIABLE and value != setting.default:
        from ws_pipeline.defs.executors import find_executor

        find_executor(value)
