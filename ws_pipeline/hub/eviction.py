"""A budget of disk for downloaded files, and which of them go when it is used up.

What it is: :func:`choose_evictions`, the policy, pure; and :class:`DiskBudget`, which applies it
while a download asks for room. Only blobs go that hub files are made of and that no revision still
needs: every revision that holds one must be done, which the caller defines (its tokens are stored).
What it is not: a sweeper of orphans (``storage``). Store I/O; a removed file can be fetched again.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ws_pipeline.errors import Reason, RefusedError
from ws_pipeline.storage.store import Store

FILES_STAGE = "files"
"""The stage under which ``download`` keeps its manifests."""

IsDone = Callable[[str, str], bool]
"""Says of (hub id, revision) whether its files have served their purpose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A blob that a hub file is made of.

    Attributes:
        is_needed: Some revision that holds it is not done.
    """

    sha256: str
    num_bytes: int
    is_needed: bool


def choose_evictions(
    files: Iterable[StoredFile], *, budget_bytes: int, wanted_bytes: int
) -> list[StoredFile]:
    """Return the files to remove so that ``wanted_bytes`` more fit into the budget.

    Large files go first, since fewer removals mean fewer repos to fetch again should the tokens'
    format change; equal ones by digest, so that two runs agree. No file goes that is needed, and
    none when the room would not be enough even so.
    """
    stored = list(files)
    excess = sum(file.num_bytes for file in stored) + wanted_bytes - budget_bytes
    idle = [file for file in stored if not file.is_needed]
    idle.sort(key=lambda file: (-file.num_bytes, file.sha256))
    if excess > sum(file.num_bytes for file in idle):
        return []
    chosen: list[StoredFile] = []
    for file in idle:
        if excess <= 0:
            break
        chosen.append(file)
        excess -= file.num_bytes
    return chosen


def list_stored_files(store: Store, is_done: IsDone) -> list[StoredFile]:
    """Return every stored blob of a hub file, from the manifests; one read per revision."""
    needed: dict[str, bool] = {}
    for key in store.manifests.keys(FILES_STAGE):
        manifest = store.manifests.read(key)
        is_needed = not is_done(manifest["hub_id"], manifest["revision"])
        for file in manifest["files"]:
            needed[file["sha256"]] = needed.get(file["sha256"], False) or is_needed
    return [
        StoredFile(sha256=sha256, num_bytes=store.blobs.num_bytes(sha256), is_needed=is_needed)
        for sha256, is_needed in sorted(needed.items())
        if store.blobs.exists(sha256)
    ]


class DiskBudget:
    """How many bytes of downloaded files may be stored at a time. Safe to share by threads.

    Made anew for each run over a family, and counts what is stored when it begins: two at the same
    time would exceed the budget together, so the asset graph lets one family download at a time.

    Args:
        store: Where the files are; None where there is no limit.
        max_bytes: The budget.
        is_done: Which revisions' files may go.
    """

    def __init__(
        self,
        store: Store | None,
        *,
        max_bytes: int = 2**62,
        is_done: IsDone = lambda _hub_id, _revision: False,
    ) -> None:
        self.is_done = is_done
        self._store = store
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._files: list[StoredFile] | None = None
        self._reserved_bytes = 0
        self._kept: set[str] = set()

    def keep(self, store: Store, sha256: str) -> bool:
        """Say whether a blob is stored; if so, it stays while this budget lives."""
        with self._lock:
            if not store.blobs.exists(sha256):
                return False
            self._kept.add(sha256)
            return True

    def reserve(self, num_bytes: int) -> None:
        """Make room for a repo's files that are about to be fetched.

        Raises:
            RefusedError: ``file_too_large`` for more than the whole budget; ``no_space`` while
                the stored files are still needed, for the next run to try again.
        """
        if self._store is None:
            return
        if num_bytes > self._max_bytes:
            raise RefusedError(
                f"Files of {num_bytes} bytes are larger than the whole budget of "
                f"{self._max_bytes} bytes for files.",
                reason=Reason.FILE_TOO_LARGE,
            )
        with self._lock:
            self._make_room(self._store, num_bytes)
            self._reserved_bytes += num_bytes

    def _make_room(self, store: Store, num_bytes: int) -> None:
        if self._files is None:
            self._files = list_stored_files(store, self.is_done)
        wanted = num_bytes + self._reserved_bytes
        files = [
            replace(file, is_needed=file.is_needed or file.sha256 in self._kept)
            for file in self._files
        ]
        chosen = choose_evictions(files, budget_bytes=self._max_bytes, wanted_bytes=wanted)
        gone = {file.sha256 for file in chosen}
        for sha256 in gone:
            store.blobs.remove(sha256)
        self._files = [file for file in self._files if file.sha256 not in gone]
        stored_bytes = sum(file.num_bytes for file in self._files)
        if stored_bytes + wanted > self._max_bytes:
            raise RefusedError(
                f"The budget of {self._max_bytes} bytes for files holds {stored_bytes} bytes whose "
                "tokens are not made yet; make them, then run again.",
                reason=Reason.NO_SPACE,
            )


NO_BUDGET = DiskBudget(None)
"""As much as the disk holds; nothing is ever removed."""
