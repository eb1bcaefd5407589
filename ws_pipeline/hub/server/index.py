"""The embedded hub's repos: which there are right now, and the page of them that a query asks for.

Belongs here: finding ``<owner>/<name>`` folders, re-reading those that changed, filters, order and
the keyset cursor. Does not: what one repo is (``repo``), HTTP (``routes``). Reads the disk.

Every request looks at the folder again, with one ``stat`` per file and no hashing: 519 repos take
40 ms on one core, so there is no watcher, no refresh interval and no stale answer.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ws_pipeline.errors import ConfigError, MissingInputError
from ws_pipeline.hub.server.files import scan_folder
from ws_pipeline.hub.server.repo import DigestCache, RepoFolder
from ws_pipeline.hub.server.views import repo_tags

REPO_NAME = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)\w(?:[\w.-]{0,94}\w)?", re.ASCII)
"""What ``huggingface_hub.utils.validate_repo_id`` lets a client ask for."""
DATASETS_FOLDER = "datasets"
"""Holds data-set repos; the Hub too gives no account this name."""
SORTS: dict[str, Callable[[RepoFolder], str]] = {
    "createdAt": lambda repo: repo.created_at,
    "lastModified": lambda repo: repo.last_modified,
    # A folder knows no such counts: all are equal, and the id decides.
    "downloads": lambda _repo: "",
    "likes": lambda _repo: "",
    "trendingScore": lambda _repo: "",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ListQuery:
    """A listing request.

    Attributes:
        filters: Tags that a repo must all have.
        author, search, pipeline_tag: Further conditions, "" for none.
        gated: True or False to ask for one kind, None for both.
        descending: Newest first.
        cursor: Where the page before ended, "" for the first.
        with_private: Whether the request carries a token.
    """

    filters: tuple[str, ...] = ()
    author: str = ""
    search: str = ""
    pipeline_tag: str = ""
    gated: bool | None = None
    sort: str = "trendingScore"
    descending: bool = True
    limit: int = 1000
    cursor: str = ""
    with_private: bool = False

    def __post_init__(self) -> None:
        """Refuse what the folder cannot answer."""
        if self.sort not in SORTS:
            raise ConfigError(f"sort has to be one of {', '.join(SORTS)}, not {self.sort!r}")
        if self.limit < 1:
            raise ConfigError(f"limit has to be at least 1, not {self.limit}")


class HubFolder:
    """The repos under ``folder/<owner>/<name>/``, as they are now."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise MissingInputError(f"There is no folder {folder}; make it, or name another one.")
        self.folder = folder.resolve()
        self._read: dict[str, RepoFolder] = {}
        self._cache: DigestCache = {}

    def repo(self, repo_id: str) -> RepoFolder | None:
        """Return one repo, or None where nothing (servable) lies."""
        owner, _, name = repo_id.partition("/")
        if not (REPO_NAME.fullmatch(owner) and REPO_NAME.fullmatch(name)):
            return None
        folder = self.folder / owner / name
        try:
            if folder.is_symlink() or folder.parent.is_symlink() or not folder.is_dir():
                return None
            scan = scan_folder(folder)
        except OSError:
            return None
        if scan is None:
            return None
        known = self._read.get(repo_id)
        if known is not None and known.scan == scan and known.is_settled:
            return known
        repo = RepoFolder.read(repo_id, folder, scan, self._cache, before=known)
        self._read[repo_id] = repo
        return repo

    def repos(self) -> list[RepoFolder]:
        """Return all repos."""
        found = (self.repo(repo_id) for repo_id in self._names())
        return [repo for repo in found if repo is not None]

    def unservable(self) -> list[str]:
        """Return folders two levels down whose names no hub client can ask for."""
        names = (f"{owner.name}/{name.name}" for owner, name in self._folders())
        return sorted(n for n in names if not all(REPO_NAME.fullmatch(p) for p in n.split("/")))

    def _names(self) -> Iterator[str]:
        return (f"{owner.name}/{name.name}" for owner, name in self._folders())

    def _folders(self) -> Iterator[tuple[Path, Path]]:
        for owner in sorted(self.folder.iterdir()):
            if owner.name.startswith(".") or owner.name == DATASETS_FOLDER:
                continue
            if owner.is_symlink() or not owner.is_dir():
                continue
            for name in sorted(owner.iterdir()):
                if not name.name.startswith(".") and name.is_dir():
                    yield owner, name


def select_page(repos: list[RepoFolder], query: ListQuery) -> tuple[list[RepoFolder], str]:
    """Return the page that a query asks for, and the cursor of the next one ("" on the last).

    The cursor is a keyset, (value, id) of the last repo shown: repos that come or go between two
    requests neither shift the page nor appear twice in it.
    """
    value = SORTS[query.sort]
    matching = [repo for repo in repos if _matches(repo, query)]
    matching.sort(key=lambda repo: repo.hub_id)
    matching.sort(key=value, reverse=query.descending)  # stable: ids ascend among equals
    if query.cursor:
        last_value, last_id = decode_cursor(query.cursor)
        matching = [
            repo
            for repo in matching
            if _comes_after(value(repo), repo.hub_id, last_value, last_id, query.descending)
        ]
    page = matching[: query.limit]
    if len(matching) <= query.limit:
        return page, ""
    return page, encode_cursor(value(page[-1]), page[-1].hub_id)


def _comes_after(value: str, hub_id: str, last: str, last_id: str, descending: bool) -> bool:
    if value == last:
        return hub_id > last_id
    return value < last if descending else value > last


def _matches(repo: RepoFolder, query: ListQuery) -> bool:
    if repo.private and not query.with_private:
        return False
    if query.author and repo.repo_id.split("/")[0] != query.author:
        return False
    if query.search.lower() not in repo.repo_id.lower():
        return False
    if query.pipeline_tag and repo.card.get("pipeline_tag") != query.pipeline_tag:
        return False
    if query.gated is not None and bool(repo.gated) != query.gated:
        return False
    return not query.filters or set(query.filters) <= set(repo_tags(repo))


def encode_cursor(value: str, hub_id: str) -> str:
    """Pack a keyset into text that survives a URL."""
    return base64.urlsafe_b64encode(json.dumps([value, hub_id]).encode()).decode()


def decode_cursor(cursor: str) -> tuple[str, str]:
    """Undo :func:`encode_cursor`.

    Raises:
        ConfigError: The text is not a cursor of ours.
    """
    try:
        value, hub_id = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii", "replace")))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise ConfigError("cursor is not one that this hub gave out") from None
    return str(value), str(hub_id)
