"""One repo of the embedded hub: its folder at one moment, and the revision that follows from it.

Belongs here: ids, revision, dates, ``.hub.json``, keeping digests. Does not: walking and hashing
(``files``), what files say (``metadata``), many repos (``index``), HTTP
(``endpoint``). Reads the disk; writes nothing.

A revision is the sha1 of the sorted (path, blob id) pairs, so equal content has an equal revision
wherever it lies. Digests are computed when first asked for: a plain listing hashes nothing.
"""

import hashlib
import threading
import time
from bisect import bisect_left
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ws_pipeline.hub.server.files import (
    SETTINGS_NAME,
    FileDigest,
    FolderScan,
    RepoFile,
    digest_file,
)
from ws_pipeline.hub.server.metadata import (
    MAX_FRONT_MATTER_BYTES,
    parse_front_matter,
    parse_json_object,
)

MAX_CONFIG_BYTES = 4 * 1024 * 1024
"""A config.json with 20,000 labels is 1 MB."""
SETTLED_NS = 2 * 10**9
"""A file younger than this may change again without a new mtime, so what was read is not kept."""

NS_PER_MS = 10**6

DigestCache = MutableMapping[Path, tuple[RepoFile, FileDigest]]


@dataclass(eq=False, kw_only=True, slots=True)
class RepoFolder:
    """A repo as its folder stood at one scan.

    Digests, and the revision with them, are lazy and thread-safe.

    Attributes:
        modified_ns: When the folder last changed; later than in any reading before this one.
    """

    repo_id: str
    folder: Path
    scan: FolderScan
    card: dict[str, Any]
    config: dict[str, Any]
    settings: dict[str, Any]
    cache: DigestCache
    read_ns: int
    modified_ns: int
    _digests: dict[str, FileDigest] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(
        cls,
        repo_id: str,
        folder: Path,
        scan: FolderScan,
        cache: DigestCache,
        before: "RepoFolder | None" = None,
    ) -> "RepoFolder":
        """Read what the files say of the repo, and when it changed since `before`; no digests."""
        names = {file.path for file in scan.files}
        card = _read_start(folder / "README.md", MAX_FRONT_MATTER_BYTES, names)
        config = _read_start(folder / "config.json", MAX_CONFIG_BYTES, names)
        settings = scan.settings and _read_start(folder / SETTINGS_NAME, MAX_CONFIG_BYTES, None)
        return cls(
            repo_id=repo_id,
            folder=folder,
            scan=scan,
            card=parse_front_matter(card),
            config=parse_json_object(config),
            settings=parse_json_object(settings or b"{}"),
            cache=cache,
            read_ns=time.time_ns(),
            modified_ns=_modified_ns(scan, before),
        )

    @property
    def is_settled(self) -> bool:
        """Whether the folder was quiet for long enough that this reading can be trusted later."""
        return self.read_ns - self.scan.newest_ns > SETTLED_NS

    def file(self, path: str) -> RepoFile | None:
        """Return one served file, None where there is none."""
        files = self.scan.files
        at = bisect_left(files, path, key=_path_of)
        return files[at] if at < len(files) and files[at].path == path else None

    def files_in(self, folder: str) -> tuple[RepoFile, ...]:
        """Return the files below a folder ("" for all); neighbours, since paths are sorted."""
        if not folder:
            return self.scan.files
        start = bisect_left(self.scan.files, f"{folder}/", key=_path_of)
        stop = bisect_left(self.scan.files, f"{folder}0", key=_path_of)  # "0" follows "/"
        return self.scan.files[start:stop]

    @property
    def names(self) -> list[str]:
        """Paths of the served files, sorted."""
        return [file.path for file in self.scan.files]

    @property
    def hub_id(self) -> str:
        """The immutable id: 24 hexadecimal digits."""
        stated = self.settings.get("_id")
        if isinstance(stated, str) and stated:
            return stated
        return hashlib.sha256(self.repo_id.encode()).hexdigest()[:24]

    @property
    def gated(self) -> str | bool:
        """``"auto"``, ``"manual"`` or False."""
        stated = self.settings.get("gated", False)
        return stated if stated in {"auto", "manual"} else bool(stated) and "manual"

    @property
    def private(self) -> bool:
        """Seen only by requests that carry a token."""
        return bool(self.settings.get("private", False))

    @property
    def disabled(self) -> bool:
        """Listed, but nothing of it can be downloaded."""
        return bool(self.settings.get("disabled", False))

    @property
    def created_at(self) -> str:
        """ISO time of the oldest file, unless the settings say otherwise."""
        oldest = min(file.mtime_ns for file in self.scan.files)
        return str(self.settings.get("createdAt") or format_time(oldest))

    @property
    def last_modified(self) -> str:
        """ISO time of the last change in the folder, unless the settings say otherwise."""
        return str(self.settings.get("lastModified") or format_time(self.modified_ns))

    @property
    def digests(self) -> dict[str, FileDigest]:
        """Digest of every file by path; hashes what is not in the cache."""
        with self._lock:
            if not self._digests:
                self._digests = {file.path: self._digest(file) for file in self.scan.files}
            return self._digests

    @property
    def sha(self) -> str:
        """The revision: 40 hexadecimal digits that follow from the content alone."""
        lines = "".join(f"{path}\0{digest.blob_id}\n" for path, digest in self.digests.items())
        return hashlib.sha1(lines.encode()).hexdigest()  # noqa: S324 - a revision has sha1's length

    def _digest(self, file: RepoFile) -> FileDigest:
        path = self.folder / file.path
        known = self.cache.get(path)
        if known is not None and known[0] == file:
            return known[1]
        digest = digest_file(path, file)
        if time.time_ns() - max(file.mtime_ns, file.ctime_ns) > SETTLED_NS:
            self.cache[path] = (file, digest)
        return digest


def _modified_ns(scan: FolderScan, before: RepoFolder | None) -> int:
    """Time of the last change, at the listing's resolution.

    File systems stamp by a clock that stands still for milliseconds, and listings show no more:
    two changes within one tick still have to be two moments, or the second would go unseen.
    """
    if before is None:
        return scan.newest_ns
    if before.scan == scan:
        return before.modified_ns
    return max(scan.newest_ns, before.modified_ns + NS_PER_MS)


def _path_of(file: RepoFile) -> str:
    return file.path


def _read_start(path: Path, num_bytes: int, names: set[str] | None) -> bytes:
    if names is not None and path.name not in names:
        return b""
    try:
        with path.open("rb") as file:
            return file.read(num_bytes)
    except OSError:
        return b""


def format_time(time_ns: int) -> str:
    """Write a time as the public hub does: ISO, milliseconds, Z."""
    moment = datetime.fromtimestamp(time_ns / 10**9, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
