"""The files of a repo folder: which are served, and their git and LFS digests.

Belongs here: the walk over one folder, what is hidden (dot files, links leading outside), hashing.
Does not: what a repo is (``repo``), what files say (``metadata``). Reads the disk.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

SETTINGS_NAME = ".hub.json"
"""Beside a repo's files, never served: gated, private, disabled, _id, createdAt, lastModified."""
MAX_FILES = 20_000
"""Files of one repo; the largest public model repos have a few thousand shards."""
MAX_DEPTH = 16
LFS_MIN_BYTES = 10 * 1024 * 1024
"""The public hub refuses larger files outside LFS."""
LFS_PATTERNS = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.onnx"),
    *("*.npy", "*.npz", "*.parquet", "*.arrow", "*.msgpack", "*.joblib", "*.tflite", "*.gguf"),
    *("*.zip", "*.gz", "*.bz2", "*.xz", "*.zst", "*.7z", "*.rar", "*.tar", "*.model", "*.ot"),
)
"""From the .gitattributes that every new repo of the public hub starts with."""
CHUNK_BYTES = 1 << 20


def is_lfs_file(path: str, num_bytes: int) -> bool:
    """Say whether the public hub would keep a file in LFS."""
    name = path.rsplit("/", 1)[-1].lower()
    return num_bytes > LFS_MIN_BYTES or any(fnmatch(name, p) for p in LFS_PATTERNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class RepoFile:
    """One served file as ``stat`` saw it; equal means unchanged."""

    path: str
    num_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def is_lfs(self) -> bool:
        """Whether the public hub would keep it in LFS."""
        return is_lfs_file(self.path, self.num_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """The git blob id (of the pointer, for LFS) and, for LFS, sha256 and size of the pointer."""

    blob_id: str
    sha256: str = ""
    pointer_bytes: int = 0

    @property
    def etag(self) -> str:
        """What names the content in HTTP."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderScan:
    """What a walk over a repo folder saw.

    Attributes:
        files: Served files, sorted by path.
        newest_ns: Last change of anything in the folder, deletions and renames included.
        settings: ``stat`` of the settings file, None without one.
    """

    files: tuple[RepoFile, ...]
    newest_ns: int
    settings: RepoFile | None = None


def scan_folder(folder: Path) -> FolderScan | None:
    """Walk a repo folder; None where there is nothing to serve, or more than the caps allow."""
    root = folder.stat()
    newest = [root.st_mtime_ns, root.st_ctime_ns]  # ctime: a folder moved here keeps its old mtimes
    files: list[RepoFile] = []
    for file in _walk_files(folder, folder.resolve(), "", newest):
        files.append(file)
        newest.append(file.mtime_ns)
        if len(files) > MAX_FILES:
            return None
    if not files:
        return None
    try:
        settings: RepoFile | None = _describe(SETTINGS_NAME, (folder / SETTINGS_NAME).lstat())
    except OSError:
        settings = None
    if settings is not None:
        newest.append(settings.mtime_ns)
    files.sort(key=lambda file: file.path)
    return FolderScan(files=tuple(files), newest_ns=max(newest), settings=settings)


def _walk_files(folder: Path, root: Path, prefix: str, newest: list[int]) -> Iterator[RepoFile]:
    try:
        entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
    except OSError:  # gone between two steps
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                newest.append(entry.stat(follow_symlinks=False).st_mtime_ns)
                if prefix.count("/") < MAX_DEPTH:
                    inside = Path(entry.path), root, f"{prefix}{entry.name}/", newest
                    yield from _walk_files(*inside)
            elif _is_served(entry, root):
                yield _describe(prefix + entry.name, entry.stat())


def _is_served(entry: os.DirEntry[str], root: Path) -> bool:
    if entry.is_symlink():
        return leads_inside(Path(entry.path), root)
    return entry.is_file()


def is_hidden(name: str) -> bool:
    """Whether a name is never served: dot files, and names that are not UTF-8 or not printable."""
    return name.startswith(".") or not name.isprintable()


def leads_inside(link: Path, root: Path) -> bool:
    """Whether a link ends at a plain, visible file under `root` (already resolved)."""
    try:
        target = link.resolve(strict=True)
        inside = target.relative_to(root)
    except (OSError, ValueError, RuntimeError):
        return False
    return stat.S_ISREG(target.stat().st_mode) and not any(is_hidden(p) for p in inside.parts)


def _describe(path: str, status: os.stat_result) -> RepoFile:
    return RepoFile(
        path=path,
        num_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
    )


def digest_file(path: Path, file: RepoFile) -> FileDigest:
    """Hash one file as git (small files) or git LFS (weights) would."""
    num_bytes = path.stat().st_size
    digest = _start_digest(num_bytes, is_lfs=file.is_lfs)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return _end_digest(digest.hexdigest(), num_bytes, is_lfs=file.is_lfs)


def digest_bytes(path: str, data: bytes) -> FileDigest:
    """Hash what a file of that name would hold as :func:`digest_file` does."""
    is_lfs = is_lfs_file(path, len(data))
    digest = _start_digest(len(data), is_lfs=is_lfs)
    digest.update(data)
    return _end_digest(digest.hexdigest(), len(data), is_lfs=is_lfs)


def _start_digest(num_bytes: int, *, is_lfs: bool) -> Any:
    if is_lfs:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % num_bytes)  # noqa: S324 - git's id


def _end_digest(digest: str, num_bytes: int, *, is_lfs: bool) -> FileDigest:
    if not is_lfs:
        return FileDigest(blob_id=digest)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
        digest.encode(),
        num_bytes,
    )
    blob_id = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()  # noqa: S324 - git's id
    return FileDigest(blob_id=blob_id, sha256=digest, pointer_bytes=len(pointer))
