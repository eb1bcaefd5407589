"""What a hub means by a status, its headers and its JSON. Pure, no I/O.

What it is: from a response to a reason, and whether and when to ask again. What it is not:
the asking (``transport``).

Source: huggingface_hub 2.4, ``utils/_http.py``; https://huggingface.co/docs/hub/rate-limits.
"""

import contextlib
import json
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import httpx2
from huggingface_hub.utils._http import parse_ratelimit_headers

from ws_pipeline.bounded_json import BoundedJsonError, check_structure
from ws_pipeline.errors import HubError, Reason
from ws_pipeline.hub.urls import show_url

MAX_ANSWER_DEPTH = 64
MAX_ANSWER_VALUES = 800_000
"""500 rows of 200 values are 100,000, 20,000 files of 20 values 400,000; a parser turns each into
at most 90 bytes of memory, so an answer of nothing but brackets stays below 80 MB."""


class TransientError(HubError):
    """A request that may succeed when it is sent again."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        reason: Reason = Reason.UNREACHABLE,
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_seconds = retry_after_seconds


def check_status(response: httpx2.Response) -> None:
    """Pass 200 and 206.

    Raises:
        TransientError: If asking again may help.
        HubError: If it will not, with the reason.
    """
    status = response.status_code
    if status in (200, 206):
        return
    if status in (408, 425, 429) or status >= 500:
        raise TransientError(
            f"{show_url(str(response.url))} answered {status}; the hub is busy, run again later.",
            retry_after_seconds=wait_seconds(response),
        )
    _refuse_status(response)


def _refuse_status(response: httpx2.Response) -> NoReturn:
    """Raise what a 4xx means; the hub answers 401 both for private and for absent repos.

    What is said of a repo stands in its row of the ledger, where no URL belongs: the embedded hub
    has another one tomorrow.
    """
    code = response.headers.get("x-error-code", "")
    message = response.headers.get("x-error-message", "")
    if code == "GatedRepo":
        raise HubError(
            "The repo is gated; ask for access on the hub and set a token.", reason=Reason.GATED
        )
    if "disabled" in message.lower():
        raise HubError("The repo is disabled by the hub.", reason=Reason.DISABLED)
    if response.status_code in (404, 410) or code in ("RepoNotFound", "EntryNotFound"):
        where = unquote(urlsplit(str(response.url)).path)[:200]
        raise HubError(f"{where} is not there (any more).", reason=Reason.NOT_FOUND)
    if response.status_code in (401, 403):
        raise HubError("The repo is private, or not for this token.", reason=Reason.PRIVATE)
    where = show_url(str(response.url))
    raise HubError(f"{where} answered {response.status_code}, which no retry will change.")


def wait_seconds(response: httpx2.Response) -> float | None:
    """Return the pause that Retry-After or RateLimit asks for."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(response.headers.get("retry-after", "")))
    limit = read_limit(response)
    return limit[1] if limit is not None and limit[0] == 0 else None


def read_limit(response: httpx2.Response) -> tuple[int, float] | None:
    """Return how many requests the window has left and in how many seconds it ends.

    A refusal that names only a pause (429 with Retry-After) is a window with nothing left.
    """
    with contextlib.suppress(ValueError):  # a number of 5,000 digits
        info = parse_ratelimit_headers(response.headers)
        if info is not None:
            return info.remaining, float(min(info.reset_in_seconds, 10**9))
    if response.status_code == 429:
        with contextlib.suppress(ValueError):
            return 0, max(0.0, float(response.headers.get("retry-after", "")))
    return None


def decode_json(body: bytes, *, max_bytes: int) -> Any:
    """Return what an answer of the API says, within bounds of size, depth and number of values.

    Bounds only: what else is wrong is wrong with one row, and must not cost the page.

    Raises:
        TransientError: If it is no JSON.
        HubError: If it is out of bounds.
    """
    try:
        check_structure(
            body, max_bytes=max_bytes, max_depth=MAX_ANSWER_DEPTH, max_values=MAX_ANSWER_VALUES
        )
        return json.loads(body)
    except BoundedJsonError as error:
        raise HubError(f"The hub's answer is out of bounds: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise TransientError(f"The hub's answer is no JSON ({len(body)} bytes).") from error
