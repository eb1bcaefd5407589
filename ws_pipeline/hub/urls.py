"""Origins and URLs of a hub. Pure, no I/O."""

import contextlib
from urllib.parse import urljoin, urlsplit

from ws_pipeline.errors import ConfigError, HubError


def check_endpoint(endpoint: str) -> str:
    """Return the host of a plain http or https URL.

    Raises:
        ConfigError: If ``endpoint`` is none.
    """
    with contextlib.suppress(ValueError):
        scheme, host, port = origin_of(endpoint)
        if scheme in ("http", "https") and host and port and "?" not in endpoint:
            return host
    raise ConfigError(
        f"A hub's endpoint is a URL such as https://huggingface.co; got {endpoint[:80]!r}."
    )


def join_url(base: str, location: str) -> str:
    """Return where a redirect or a Link leads.

    Raises:
        HubError: If that is no URL.
    """
    try:
        url = urljoin(base, location)
        origin_of(url)
    except ValueError as error:
        raise HubError(f"The hub redirects to something that is no URL: {error}.") from error
    return url


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port; ValueError where there is no telling."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def relative_url(url: str) -> str:
    """Return path and query: what stays true when the hub moves to another port or host."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def show_url(url: str) -> str:
    """Return a URL without credentials, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path[:200]}"
