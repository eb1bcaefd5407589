"""What the pipeline asks of a hub, over ``huggingface_hub``'s own HTTP session.

What it is: listing, details, byte ranges and whole files of a hub, each answer checked against what
was asked. What it is not: a judgement on repos (``triage``, ``selection``), nor the transport's
rules on time-outs, retries and origins (``transport``). Does network I/O; files only where
:meth:`download` is told to.

Why not ``HfApi``: its listing has no time-out, follows a Link header to another origin with the
token, loops for ever over a Link cycle and dies of one malformed row; its downloads are not
verified.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ws_pipeline.errors import HubError, IntegrityError, Reason, RefusedError
from ws_pipeline.hub.budget import RateBudget
from ws_pipeline.hub.listing import is_file_name, is_repo_id
from ws_pipeline.hub.pager import PAGE_SIZE, Order, Page, Pager
from ws_pipeline.hub.responses import TransientError, decode_json
from ws_pipeline.hub.retries import DEFAULT_RETRIES, RetryPolicy
from ws_pipeline.hub.sink import FileSink, is_blob, is_content
from ws_pipeline.hub.transport import Answer, Transport

MAX_DETAIL_BYTES = 16 * 1024**2
"""20,000 files at 300 bytes each are 6 MB, a card of any size we keep is smaller."""

MIN_BYTES_PER_SECOND = 50_000
"""A slower download counts as hung and is tried again."""


class HubClient:
    """A hub at one origin.

    Args:
        endpoint: ``https://huggingface.co`` or where an embedded hub listens.
        token: Sent to the endpoint's origin only, never logged.
        retries: How often and how long failed requests are tried again.
        budget: Of the token, shared with other processes; by default that of this client alone.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | None = None,
        *,
        retries: RetryPolicy = DEFAULT_RETRIES,
        budget: RateBudget | None = None,
    ) -> None:
        self._transport = Transport(endpoint, token, retries=retries, budget=budget)
        self._pager = Pager(self._transport)

    def __repr__(self) -> str:
        return f"HubClient({self.endpoint!r})"

    @property
    def endpoint(self) -> str:
        """The hub's origin, without a trailing slash."""
        return self._transport.endpoint

    def list_pages(
        self,
        *,
        tags: tuple[str, ...] = (),
        order: Order = "oldest",
        cursor: str = "",
        page_size: int = PAGE_SIZE,
    ) -> Iterator[Page]:
        """Yield the listing's pages.

        A page that is no JSON list, or whose Link leads to another origin or back to a page that
        was had, is asked for again before it is given up.

        Args:
            tags: Every tag that a repo must have.
            order: ``oldest`` by creation, which never changes; ``recent`` by last change, newest
                first.
            cursor: Where to go on: the ``cursor`` of an earlier page.
            page_size: Rows per request.

        Raises:
            HubError: If a page is no JSON list, or if Link leads to another origin or in a circle.
        """
        return self._pager.pages(tags=tags, order=order, cursor=cursor, page_size=page_size)

    def list_models(self, *, tags: tuple[str, ...] = ()) -> Iterator[object]:
        """Yield raw listing rows over all pages; see :meth:`list_pages`."""
        for page in self.list_pages(tags=tags):
            yield from page.items

    def repo_info(self, repo_id: str, revision: str, *, blobs: bool = True) -> dict[str, Any]:
        """Return the hub's own JSON about a repo at a revision.

        Args:
            repo_id: Its name; a renamed repo is followed on the same origin.
            revision: Commit sha.
            blobs: Ask for sizes and digests of the files.

        Raises:
            HubError: ``not_found``, ``private``, ``gated``, ``disabled`` or ``unreachable``.
        """
        path = f"api/models/{_repo_path(repo_id)}/revision/{quote(revision, safe='')}"
        url = f"{self.endpoint}/{path}" + ("?blobs=true" if blobs else "")
        answer = self._transport.get(url, max_bytes=MAX_DETAIL_BYTES, check=_check_json)
        info = decode_json(answer.body, max_bytes=MAX_DETAIL_BYTES)
        if not isinstance(info, dict):
            raise HubError(f"The hub's answer on {repo_id} must be a JSON object.")
        return info

    def read_range(
        self,
        repo_id: str,
        revision: str,
        path: str,
        start: int,
        num_bytes: int,
        *,
        sha256: str = "",
        blob_id: str = "",
    ) -> bytes:
        """Return exactly ``num_bytes`` of a file from ``start``.

        For a range that is the whole file, ``sha256`` or ``blob_id`` say what the bytes have to be.

        Raises:
            HubError: If the answer is not 206 with the range and length that were asked for, or
                has other bytes than stated (``sha256_mismatch``).
        """
        if start < 0 or num_bytes < 1:
            raise RefusedError(f"A range needs start >= 0 and a byte; got {start}, {num_bytes}.")
        end = start + num_bytes - 1

        def check(answer: Answer) -> None:
            stated = answer.headers.get("content-range", "")
            if answer.status != 206 or not stated.startswith(f"bytes {start}-{end}/"):
                raise TransientError(
                    f"{path} of {repo_id}: asked for bytes {start}-{end}, the hub answered "
                    f"{answer.status} with range {stated[:60]!r}."
                )
            if len(answer.body) != num_bytes:
                raise TransientError(
                    f"{path} of {repo_id}: asked for {num_bytes} bytes, got {len(answer.body)}."
                )
            _check_content(answer.body, f"{path} of {repo_id}", sha256, blob_id)

        return self._transport.get(
            self._file_url(repo_id, revision, path),
            headers={"Range": f"bytes={start}-{end}"},
            max_bytes=num_bytes,
            is_file=True,
            revision=revision,
            check=check,
        ).body

    def read_file(
        self,
        repo_id: str,
        revision: str,
        path: str,
        *,
        max_bytes: int,
        sha256: str = "",
        blob_id: str = "",
    ) -> bytes:
        """Return a small file whole, checked against what the hub states of it.

        Raises:
            HubError: If it is larger than ``max_bytes``, or has other bytes than stated.
        """
        return self._transport.get(
            self._file_url(repo_id, revision, path),
            max_bytes=max_bytes,
            is_file=True,
            revision=revision,
            check=lambda answer: _check_content(
                answer.body, f"{path} of {repo_id}", sha256, blob_id
            ),
        ).body

    def download(
        self,
        repo_id: str,
        revision: str,
        path: str,
        destination: Path,
        *,
        sha256: str = "",
        blob_id: str = "",
        num_bytes: int,
    ) -> str:
        """Write a file to ``destination`` and return its sha256; constant memory.

        What ``destination`` holds already, from a process that was killed, is taken for the file's
        first bytes, and the rest is asked for by range; so is what a cut connection left. All bytes
        are checked: against ``sha256`` where the hub states one, else against git's ``blob_id``.

        Raises:
            IntegrityError: If the whole file came and is not what the hub stated.
            HubError: If it did not come.
        """
        url = self._file_url(repo_id, revision, path)
        with destination.open("a+b") as file:
            sink = FileSink(file=file, num_bytes=num_bytes)
            sink.resume()
            if sink.have != num_bytes or not num_bytes:
                deadline_seconds = 60 + num_bytes / MIN_BYTES_PER_SECOND
                self._transport.stream_into(
                    url, sink, revision=revision, deadline_seconds=deadline_seconds
                )
        actual = sink.digest.hexdigest()
        if sha256 and actual != sha256:
            raise IntegrityError(
                f"{path} of {repo_id} should have sha256 {sha256[:12]}..., but the bytes that came "
                f"have {actual[:12]}...; it is fetched again in the next run."
            )
        if not sha256 and blob_id and not is_blob(sink, destination, blob_id):
            raise IntegrityError(
                f"{path} of {repo_id} should be git blob {blob_id[:12]}..., but other bytes came; "
                "it is fetched again in the next run."
            )
        return actual

    def _file_url(self, repo_id: str, revision: str, path: str) -> str:
        if not is_file_name(path):
            raise RefusedError(
                f"{path[:80]!r} is no plain relative file name.", reason=Reason.UNSAFE_FILE_NAME
            )
        return (
            f"{self.endpoint}/{_repo_path(repo_id)}/resolve/"
            f"{quote(revision, safe='')}/{quote(path, safe='/')}"
        )


def _repo_path(repo_id: str) -> str:
    if not is_repo_id(repo_id):
        raise RefusedError(f"A repo is named owner/name; got {repo_id[:80]!r}.")
    return quote(repo_id, safe="/")


def _check_content(data: bytes, what: str, sha256: str, blob_id: str) -> None:
    if not is_content(data, sha256=sha256, blob_id=blob_id):
        raise TransientError(
            f"{what} came with other bytes than the hub states; it is read again in the next run.",
            reason=Reason.SHA256_MISMATCH,
        )


def _check_json(answer: Answer) -> None:
    decode_json(answer.body, max_bytes=MAX_DETAIL_BYTES)
