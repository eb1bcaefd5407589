"""Push a trained zoo to an account or organisation on a hub, over its API. Does network I/O.

One commit per repo through ``huggingface_hub``, the report as a data-set repo last: when that is
there, the zoo is. What was pushed is noted in ``pushed.jsonl`` of the zoo's folder, repo by repo,
so a push that was stopped goes on where it was; one that was stopped between commit and note
commits once more, and the hub finds nothing changed.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from tqdm import tqdm

from ws_pipeline.errors import HubError, RefusedError
from ws_pipeline.progress import hides_bars
from ws_pipeline.zoo.index import read_index
from ws_pipeline.zoo.publish import check_owner, read_repo, read_report

JOURNAL_FILE = "pushed.jsonl"
MAX_ATTEMPTS = 5
MAX_WAIT_SECONDS = 300.0
"""Longest time that is waited when a hub says to come again later."""
FIRST_WAIT_SECONDS = 2.0
BUSY_STATUSES = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True, slots=True)
class PushResult:
    """How many repos went over the wire, and how many were there from an earlier push."""

    num_pushed: int
    num_there: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Repo:
    repo_id: str
    repo_type: str
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        whole = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            whole.update(f"{name}:{hashlib.sha256(content).hexdigest()}\n".encode())
        return whole.hexdigest()


def push_zoo(
    folder: Path,
    *,
    endpoint: str,
    owner: str,
    zoo: str,
    token: str | None,
    sleep: Callable[[float], object] = time.sleep,
) -> PushResult:
    """Push a zoo's repos and its report, those that were not pushed as they are.

    Args:
        folder: The zoo's.
        endpoint: URL of the hub.
        owner: Account or organisation there.
        zoo: Name of the data-set repo.
        token: With the right to write under ``owner``.
        sleep: Waits when the hub is busy.

    Raises:
        RefusedError: Without a token, or when the hub does not let it write there.
        HubError: When the hub does not answer, or stays busy.
        MissingInputError: When there is no finished zoo, or no report of it.
    """
    check_owner(owner)
    if not token:
        raise RefusedError(
            f"Pushing to {endpoint} needs a token: set HF_TOKEN to one that may write."
        )
    api = HfApi(endpoint=endpoint, token=token)
    journal = folder / JOURNAL_FILE
    there = _read_journal(journal, endpoint)
    num_pushed = num_there = 0
    total = len(read_index(folder)) + 1
    repos = _list_repos(folder, owner, zoo)
    for repo in tqdm(repos, total=total, desc=f"push {zoo}", unit="repo", disable=hides_bars()):
        if there.get((repo.repo_type, repo.repo_id)) == repo.digest:
            num_there += 1
        else:
            _push_repo(api, repo, sleep)
            _note(journal, endpoint, repo)
            num_pushed += 1
    return PushResult(num_pushed=num_pushed, num_there=num_there)


def _list_repos(folder: Path, owner: str, zoo: str) -> Iterator[_Repo]:
    report = read_report(folder, owner)
    for name, old in read_index(folder).select("name", "owner").iter_rows():
        files = read_repo(folder, name, old, owner)
        yield _Repo(repo_id=f"{owner}/{name}", repo_type="model", files=files)
    yield _Repo(repo_id=f"{owner}/{zoo}", repo_type="dataset", files=report)


def _push_repo(api: HfApi, repo: _Repo, sleep: Callable[[float], object]) -> None:
    """Create a repo where there is none and commit its files; again while the hub is busy."""
    wait = FIRST_WAIT_SECONDS
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            api.create_repo(repo.repo_id, repo_type=repo.repo_type, exist_ok=True)
            api.create_commit(
                repo.repo_id,
                [CommitOperationAdd(name, content) for name, content in repo.files.items()],
                commit_message="Publish from Weight Space Pipeline",
                repo_type=repo.repo_type,
            )
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise RefusedError(
                    f"The hub does not take {repo.repo_id} (status {status}): HF_TOKEN must be of "
                    "an account that may write there."
                ) from error
            if status not in BUSY_STATUSES or attempt == MAX_ATTEMPTS:
                raise HubError(
                    f"The hub must take {repo.repo_id}, it answers {status} ({error}). Push again "
                    "later: it goes on with this repo."
                ) from error
            sleep(min(MAX_WAIT_SECONDS, _stated_wait(error) or wait))
            wait *= 2
        else:
            return


def _stated_wait(error: HfHubHTTPError) -> float:
    """Return the seconds that an answer says to wait; 0 when it says nothing of the kind."""
    text = error.response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _read_journal(path: Path, endpoint: str) -> dict[tuple[str, str], str]:
    """Read the digests of what was pushed; a line cut short by a kill counts as not there."""
    found: dict[tuple[str, str], str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            note: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue
        if note["endpoint"] == endpoint:
            found[note["repo_type"], note["repo_id"]] = note["digest"]
    return found


def _note(path: Path, endpoint: str, repo: _Repo) -> None:
    line = {
        "endpoint": endpoint,
        "repo_type": repo.repo_type,
        "repo_id": repo.repo_id,
        "digest": repo.digest,
    }
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(line))  # first, so that it ends a line cut short
