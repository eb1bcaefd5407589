"""One origin's requests: explicit time-outs, bounded bodies, polite retries, no token elsewhere.

What it is: the rules that every request to a hub keeps, over ``huggingface_hub.get_session()``.
What it is not: knowledge of what the hub's answers mean (``client``). Does network I/O.

- A body is read with a cap and a deadline; a slow drip ends like a hang.
- 429, 5xx and broken connections are tried again (``retries``); what the RateLimit headers say goes
  into a budget (``budget``), and a request that the hub would refuse waits instead.
- Redirects are followed by hand: within the origin with the token, to another origin only for
  files, only over https and without the token.
- URLs stand in errors without their query: signed ones are secrets.

Source: https://huggingface.co/docs/hub/rate-limits.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import OfflineModeIsEnabled

from ws_pipeline.errors import HubError
from ws_pipeline.hub.budget import Bucket, RateBudget
from ws_pipeline.hub.responses import TransientError, check_status, read_limit
from ws_pipeline.hub.retries import Retrier, RetryPolicy
from ws_pipeline.hub.session import open_session, user_agent
from ws_pipeline.hub.sink import FileSink
from ws_pipeline.hub.urls import check_endpoint, join_url, origin_of, show_url

TIMEOUT = httpx2.Timeout(connect=10.0, read=30.0, write=30.0, pool=60.0)
"""Seconds; a heavy listing page of the public hub takes up to 20."""

DEADLINE_SECONDS = 120.0
"""For one whole answer but a file's; a page that drips for longer is given up."""

MAX_REDIRECTS = 5

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A whole answer of at most the size that was allowed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    next_link: str | None


class Transport:
    """Requests to one origin. Safe to share between threads."""

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        *,
        retries: RetryPolicy,
        budget: RateBudget | None = None,
    ) -> None:
        host = check_endpoint(endpoint)
        self.endpoint = endpoint.rstrip("/")
        self._origin = origin_of(endpoint)
        self._token = token
        self._session = open_session(host)
        self._user_agent = user_agent()
        self._budget = RateBudget() if budget is None else budget
        self._retrier = Retrier(retries, self._budget)

    def is_same_origin(self, url: str) -> bool:
        """Say whether a URL has the endpoint's scheme, host and port."""
        return origin_of(url) == self._origin

    def get(
        self,
        url: str,
        *,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        is_file: bool = False,
        revision: str = "",
        check: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Return a whole answer of 200 or 206.

        Args:
            url: Of the endpoint's origin.
            max_bytes: Cap of the body.
            headers: Beyond user agent and token.
            is_file: A file may lie on another origin, an answer of the API may not.
            revision: Of a file; another one, where the hub states it, has the request sent again.
            check: Looks at the answer; a TransientError of its own has the request sent again.

        Raises:
            HubError: With the reason: not there, private, gated, disabled, or unreachable.
        """

        def attempt() -> Answer:
            deadline = time.monotonic() + DEADLINE_SECONDS
            with self._open(url, headers or {}, is_file=is_file, revision=revision) as response:
                body = _read_body(response, max_bytes, deadline)
                answer = Answer(
                    status=response.status_code,
                    headers=response.headers,
                    body=body,
                    url=str(response.url),
                    next_link=response.links.get("next", {}).get("url"),
                )
            if check is not None:
                check(answer)
            return answer

        return self._retrier.call(attempt, "resolvers" if is_file else "api")

    def stream_into(
        self, url: str, sink: FileSink, *, revision: str, deadline_seconds: float
    ) -> None:
        """Stream a file into ``sink``, going on by range where a connection broke.

        Raises:
            HubError: If fewer bytes than ``sink.num_bytes`` came after all attempts.
        """
        deadline = time.monotonic() + deadline_seconds

        def attempt() -> None:
            headers = {"Range": f"bytes={sink.have}-"} if 0 < sink.have < sink.num_bytes else {}
            if not headers:
                sink.restart()
            with self._open(url, headers, is_file=True, revision=revision) as response:
                _check_resumed(response, sink)
                for chunk in _iterate(response, deadline):
                    sink.write(chunk)
            if sink.have != sink.num_bytes:
                raise TransientError(
                    f"{show_url(url)} gave {sink.have} of {sink.num_bytes} bytes; the hub cut it "
                    "off, run again later."
                )

        self._retrier.call(attempt, "resolvers")

    @contextlib.contextmanager
    def _open(
        self, url: str, headers: Mapping[str, str], *, is_file: bool, revision: str
    ) -> Iterator[httpx2.Response]:
        """Send a GET, following redirects by the module's rules; yields a good, unread answer."""
        bucket: Bucket = "resolvers" if is_file else "api"
        with contextlib.ExitStack() as stack:
            try:
                for _ in range(MAX_REDIRECTS + 1):
                    response = stack.enter_context(
                        self._session.stream(
                            "GET",
                            url,
                            headers=self._headers(url, headers, is_file=is_file),
                            timeout=TIMEOUT,
                            follow_redirects=False,
                        )
                    )
                    if self.is_same_origin(url):
                        _check_revision(response, revision)
                    if not response.is_redirect:
                        break
                    url = self._redirect(response, is_file=is_file)
                else:
                    raise TransientError(
                        f"{show_url(url)} redirects more than {MAX_REDIRECTS} times."
                    )
                self._record(bucket, response)
                check_status(response)
                yield response
            except httpx2.InvalidURL as error:
                raise HubError(
                    f"The hub redirects to something that is no URL: {error}."
                ) from error
            except OfflineModeIsEnabled as error:
                raise HubError(
                    "huggingface_hub is in offline mode; unset HF_HUB_OFFLINE to reach "
                    f"{self.endpoint}."
                ) from error
            except httpx2.RequestError as error:
                raise TransientError(
                    f"{self.endpoint} did not answer ({type(error).__name__}); check the endpoint "
                    "and the network, then run again."
                ) from error

    def _record(self, bucket: Bucket, response: httpx2.Response) -> None:
        """Put what the hub itself (not a file's other origin) says into the budget."""
        limit = read_limit(response)
        if limit is not None and self.is_same_origin(str(response.url)):
            self._budget.record(bucket, remaining=limit[0], reset_seconds=limit[1])

    def _headers(self, url: str, extra: Mapping[str, str], *, is_file: bool) -> dict[str, str]:
        headers = {"User-Agent": self._user_agent, **extra}
        if is_file:  # a range is a range of the file's own bytes
            headers["Accept-Encoding"] = "identity"
        if self._token and self.is_same_origin(url):
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _redirect(self, response: httpx2.Response, *, is_file: bool) -> str:
        url = join_url(str(response.url), response.headers.get("location", ""))
        allowed = self.is_same_origin(url) or (is_file and urlsplit(url).scheme == "https")
        if not allowed:
            raise HubError(
                f"{show_url(str(response.url))} redirects to another origin; not followed."
            )
        return url


def _check_revision(response: httpx2.Response, revision: str) -> None:
    """Require that the hub, where it says of which revision a file is, names the one asked for."""
    stated = response.headers.get("x-repo-commit", revision)
    if _COMMIT.fullmatch(revision) and stated != revision:
        raise TransientError(
            f"{show_url(str(response.url))}: asked for revision {revision[:12]}, the hub answered "
            f"with {stated[:12]!r}."
        )


def _check_resumed(response: httpx2.Response, sink: FileSink) -> None:
    if not sink.have:
        return
    if response.status_code == 200:  # the server does not do ranges
        sink.restart()
        return
    stated = response.headers.get("content-range", "")
    if stated != f"bytes {sink.have}-{sink.num_bytes - 1}/{sink.num_bytes}":
        sink.restart()
        raise TransientError(
            f"{show_url(str(response.url))} resumed with the wrong range {stated[:60]!r}."
        )


def _read_body(response: httpx2.Response, max_bytes: int, deadline: float) -> bytes:
    body = bytearray()  # not a list of pieces: a piece of one byte would take forty
    for chunk in _iterate(response, deadline):
        body += chunk
        if len(body) > max_bytes:
            raise HubError(f"{show_url(str(response.url))} sends more than {max_bytes} bytes.")
    return bytes(body)


def _iterate(response: httpx2.Response, deadline: float) -> Iterator[bytes]:
    # As it comes: iter_bytes(n) waits for n bytes, for which a drip would take weeks.
    for chunk in response.iter_bytes():
        yield chunk
        if time.monotonic() > deadline:
            raise TransientError(
                f"{show_url(str(response.url))} is too slow; check the network, then run again."
            )
