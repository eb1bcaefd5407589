"""A hub's listing, page by page, as it came; rows are not yet checked. Network I/O.

What it is: explicit order, the next page's cursor beside each page, and the refusal of Links that
lead to another origin or in a circle. What it is not: what a row says (``listing``), or how a
request is sent (``transport``).

Source: https://huggingface.co/docs/hub/api.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from ws_pipeline.errors import RefusedError
from ws_pipeline.hub.listing import LISTING_FIELDS
from ws_pipeline.hub.responses import TransientError, decode_json
from ws_pipeline.hub.transport import Answer, Transport
from ws_pipeline.hub.urls import join_url, relative_url, show_url

PAGE_SIZE = 500
"""Rows per listing request; the hub allows 1000 and times out at times with deep cursors."""

MAX_PAGE_BYTES = 16 * 1024**2
"""A page of 500 light rows is about 1 MB."""

MAX_PAGES = 100_000
"""At 500 rows: 50 million repos, ten times the public hub."""

Order = Literal["oldest", "recent"]

_SORTS: dict[Order, tuple[str, str]] = {
    "oldest": ("createdAt", "1"),
    "recent": ("lastModified", "-1"),
}
"""Sort and direction. Without them the hub sorts by trend, which moves under a pager."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One listing page as it came; rows are not yet checked."""

    items: list[object]
    cursor: str  # of the next page: its URL without the origin; "" on the last page


class Pager:
    """The listing of one hub."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._endpoint = transport.endpoint

    def pages(
        self, *, tags: tuple[str, ...], order: Order, cursor: str, page_size: int
    ) -> Iterator[Page]:
        """Yield the pages; see :meth:`~ws_pipeline.hub.client.HubClient.list_pages`."""
        url: str | None = self._listing_url(tags, order, page_size)
        if cursor:
            url = join_url(self._endpoint, cursor)
            if not self._transport.is_same_origin(url):
                raise RefusedError(f"A cursor is a path of the hub; got {show_url(url)!r}.")
        seen: set[str] = set()
        while url is not None:
            seen.add(url)
            page = self._read_page(url, seen)
            url = join_url(self._endpoint, page.cursor) if page.cursor else None
            yield page

    def _read_page(self, url: str, seen: set[str]) -> Page:
        found: list[Page] = []

        def check(answer: Answer) -> None:
            items = decode_json(answer.body, max_bytes=MAX_PAGE_BYTES)
            if not isinstance(items, list):
                raise TransientError(
                    f"A listing page must be a JSON list; got {type(items).__name__}."
                )
            next_url = self._next_url(answer)
            if next_url in seen or len(seen) >= MAX_PAGES:
                raise TransientError(
                    f"The hub's listing goes in a circle after {len(seen)} pages; "
                    "report it to whoever runs the hub."
                )
            found.append(Page(items=items, cursor=relative_url(next_url) if next_url else ""))

        self._transport.get(url, max_bytes=MAX_PAGE_BYTES, check=check)
        return found[-1]

    def _listing_url(self, tags: tuple[str, ...], order: Order, page_size: int) -> str:
        sort, direction = _SORTS[order]
        pairs = [("sort", sort), ("direction", direction), ("limit", str(page_size))]
        pairs += [("filter", tag) for tag in tags]
        pairs += [("expand", name) for name in LISTING_FIELDS]
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in pairs)
        return f"{self._endpoint}/api/models?{query}"

    def _next_url(self, answer: Answer) -> str | None:
        if answer.next_link is None:
            return None
        url = join_url(answer.url, answer.next_link)
        if not self._transport.is_same_origin(url):
            raise TransientError(
                f"The hub's listing leads from {self._endpoint} to another origin; not followed."
            )
        return url
