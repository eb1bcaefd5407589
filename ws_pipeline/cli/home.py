"""The home folder as commands need it: writable, with room, its store and its hub. Does I/O."""

import os
import re
from pathlib import Path

from ws_pipeline.errors import MissingInputError, Reason, RefusedError

REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def prepare_home(home: Path) -> Path:
    """Make the home and check that it can take more.

    Raises:
        NoSpaceError: The disk has less than the store's reserve.
        RefusedError: The folder cannot be made or written to.
    """
    from ws_pipeline.storage.local import LocalFolder

    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK | os.X_OK)
    except FileExistsError as error:
        raise RefusedError(
            f"The home {home} is a file; name a folder with --home.", reason=Reason.MISUSE
        ) from error
    except OSError as error:
        raise RefusedError(
            f"The home {home} cannot be made ({error.strerror}); name another one with --home.",
            reason=Reason.MISUSE,
        ) from error
    if not writable:
        raise RefusedError(
            f"The home {home} cannot be written to; name another one with --home.",
            reason=Reason.MISUSE,
        )
    LocalFolder(root=str(home)).check_space(0)
    return home


def store_root(home: Path) -> str:
    """Return where the store lies: $WS_STORE, else ``HOME/store``."""
    return os.environ.get("WS_STORE") or str(home / "store")


def find_store(home: Path) -> str:
    """Return where the store lies that is there already.

    Raises:
        MissingInputError: Nothing was ever stored here.
    """
    root = store_root(home)
    if "://" not in root and not Path(root).is_dir():
        raise MissingInputError(
            f"There is no store in {home}; run ws-pipeline demo or ws-pipeline hub scan first, "
            "or name another home with --home."
        )
    return root


def check_inputs(paths: list[str], what: str = "A model") -> list[Path]:
    """Return the paths, all of which have to exist.

    Raises:
        MissingInputError: Names the first that does not.
    """
    for path in paths:
        if not Path(path).exists():
            raise MissingInputError(
                f"There is no file or folder {path!r}. {what} is a .safetensors file or a folder "
                "that holds one; check the path."
            )
    return [Path(path) for path in paths]


def find_local(home: Path, name: str) -> Path | None:
    """Return a path that exists, else the embedded hub's folder of that repo id, else None."""
    if Path(name).exists():
        return Path(name)
    if not REPO_ID.fullmatch(name) or ".." in name:
        return None
    folder = home / "hub" / name
    return folder if folder.is_dir() else None
