"""Named objects in an S3 bucket: the same operations and promises as ``local.LocalFolder``.

Creating is a conditional PUT (``If-None-Match: *``), so of racing writers exactly one wins;
replacing is a plain PUT, which S3 makes visible whole. Files are always written from a finished
local file: an exception inside ``fs.open(..., "wb")`` would publish a truncated object
(seen with s3fs 2026.9). Listings are never cached, other writers are at work. A writer killed in a
large upload leaves an invisible multipart upload; the bucket's lifecycle rule
AbortIncompleteMultipartUpload removes those. Does I/O.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from ws_pipeline.errors import MissingInputError, NoSpaceError, Reason, StorageError
from ws_pipeline.storage.objects import (
    ORPHAN_AGE_SECONDS,
    RESERVE_BYTES,
    check_key,
    check_length,
    check_range,
)

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
MAX_ATTEMPTS = 5

CONCURRENT_PUTS = 16
"""Of one group of objects; a PUT waits some 20 ms for a server and computes for 2."""

_TEMPORARY_PREFIX = "ws-pipeline-object-"

_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

CONFLICT_WAIT_SECONDS = 0.2
"""Between tries while another writer creates the same object; a small PUT takes 0.05."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Folder:
    """Objects under ``s3://bucket/prefix``."""

    root: str
    filesystem: Any = field(repr=False)

    @classmethod
    def open(cls, root: str, storage_options: Mapping[str, Any]) -> "S3Folder":
        """Connect; credentials and endpoint come from ``storage_options`` or AWS_* variables.

        Args:
            root: ``s3://bucket/prefix``.
            storage_options: s3fs's own (``key``, ``secret``, ``endpoint_url``, ...).
        """
        options = {"use_listings_cache": False, **storage_options}
        settings = {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "read_timeout": READ_TIMEOUT_SECONDS,
            "retries": {"mode": "standard", "max_attempts": MAX_ATTEMPTS},
            **dict(options.get("config_kwargs", {})),
        }
        if "endpoint_url" in options or any(map(os.environ.get, _ENDPOINT_VARIABLES)):
            # Servers of one's own have no subdomain for each bucket.
            settings.setdefault("s3", {"addressing_style": "path"})
        options["config_kwargs"] = settings
        return cls(root=root.rstrip("/"), filesystem=fsspec.filesystem("s3", **options))

    def uri(self, key: str) -> str:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        return f"{self.root}/{check_key(key)}"

    def create_bytes(self, key: str, data: bytes) -> bool:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        uri = self.uri(key)
        with _s3_errors(uri):
            return _created(lambda: self.filesystem.pipe_file(uri, data, mode="create"))

    def create_many(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`: concurrent PUTs."""
        with ThreadPoolExecutor(max_workers=CONCURRENT_PUTS) as pool:
            created = pool.map(lambda pair: self.create_bytes(*pair), objects.items())
            return frozenset(key for key, is_new in zip(objects, created, strict=True) if is_new)

    def create_file(self, key: str, path: Path) -> bool:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        uri = self.uri(key)
        with _s3_errors(uri):
            return _created(lambda: self.filesystem.put_file(str(path), uri, mode="create"))

    def replace_file(self, key: str, path: Path) -> None:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        uri = self.uri(key)
        with _s3_errors(uri):
            self.filesystem.put_file(str(path), uri)

    def exists(self, key: str) -> bool:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        uri = self.uri(key)
        with _s3_errors(uri):
            return bool(self.filesystem.isfile(uri))

    def num_bytes(self, key: str) -> int:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        uri = self.uri(key)
        with _s3_errors(uri):
            return int(self.filesystem.info(uri)["size"])

    def read(self, key: str) -> bytes:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`. One GET, so never a mixture."""
        uri = self.uri(key)
        with _s3_errors(uri):
            return bytes(self.filesystem.cat_file(uri))

    def read_range(self, key: str, start: int, num_bytes: int) -> bytes:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        check_range(start, num_bytes)
        uri = self.uri(key)
        if num_bytes == 0:
            return b""
        with _s3_errors(uri):
            data = bytes(self.filesystem.cat_file(uri, start=start, end=start + num_bytes))
        return check_length(data, num_bytes, uri)

    def keys(self, prefix: str) -> list[str]:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        uri = self.uri(prefix)
        with _s3_errors(uri):
            found = self.filesystem.find(uri)
        strip = len(self.root.removeprefix("s3://")) + 1
        # Some servers keep the emptied folder itself as an object, which is no key of ours.
        return sorted(path[strip:] for path in found if path[strip:].startswith(f"{prefix}/"))

    def remove(self, key: str) -> None:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`."""
        uri = self.uri(key)
        with contextlib.suppress(MissingInputError), _s3_errors(uri):
            self.filesystem.rm_file(uri)

    @contextlib.contextmanager
    def temporary_path(self) -> Iterator[Path]:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`; in the system's own folder."""
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY_PREFIX) as folder:
            yield Path(folder) / "object"

    def sweep_orphans(self, *, now: float | None = None) -> int:
        """Remove temporary folders that killed writers left here; return how many.

        Args:
            now: Seconds since the epoch; the clock's when None.
        """
        limit = (time.time() if now is None else now) - ORPHAN_AGE_SECONDS
        num_swept = 0
        for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_PREFIX}*"):
            with contextlib.suppress(OSError):  # another process swept it, or may not
                if folder.is_dir() and folder.stat().st_mtime < limit:
                    shutil.rmtree(folder)
                    num_swept += 1
        return num_swept

    def check_space(self, num_bytes: int) -> None:
        """See :class:`~ws_pipeline.storage.objects.ObjectFolder`: of the local temporary folder."""
        folder = tempfile.gettempdir()
        if shutil.disk_usage(folder).free < num_bytes + RESERVE_BYTES:
            raise NoSpaceError(
                f"{folder} has no room for a temporary file of {num_bytes / 1e6:.0f} MB. "
                "Free some space or set TMPDIR to a larger disk, then run again."
            )


def _created(write: Callable[[], object]) -> bool:
    """Say whether a create-only write took place, False where the object was there.

    s3fs knows AWS's wording of a refusal; other servers' comes as an OSError around botocore's
    error. 409 says that another writer is at it right now, which is worth waiting for.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            write()
        except FileExistsError:
            return False
        except OSError as error:
            code = _error_code(error)
            if code == "PreconditionFailed":
                return False
            if code != "ConditionalRequestConflict" or attempt == MAX_ATTEMPTS - 1:
                raise
            time.sleep(CONFLICT_WAIT_SECONDS)
        else:
            return True
    return False


def _error_code(error: OSError) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    """Turn what s3fs and botocore raise into the project's errors."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        yield
    except FileNotFoundError as error:
        raise MissingInputError(
            f"There is no object at {uri}; run the step that makes it first."
        ) from error
    except PermissionError as error:
        # No RefusedError: what a store refuses is no verdict on what it holds.
        raise StorageError(
            f"The object store refused {uri}: {error}. Check the AWS_* credentials and the bucket.",
            reason=Reason.INVALID_CONFIG,
        ) from error
    except (OSError, BotoCoreError, ClientError) as error:
        raise StorageError(
            f"The object store failed at {uri}: {error}. Check the endpoint, then run again.",
            reason=Reason.UNREACHABLE,
        ) from error
