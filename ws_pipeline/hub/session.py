"""The HTTP session that requests to a hub go through, and the name that they go under.

What it is: ``huggingface_hub``'s own session, so that its proxies and certificates are ours. What
it is not: rules on requests (``transport``). Opens no connection by itself.
"""

import atexit
import contextlib
import functools
import logging
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address

import httpx2
from huggingface_hub import get_session


def open_session(host: str) -> httpx2.Client:
    """Return huggingface_hub's session, or for a loopback hub one that asks no proxy."""
    for name in ("httpx2", "httpcore2"):  # log signed URLs whole, at INFO and at DEBUG
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    is_loopback = host == "localhost"
    with contextlib.suppress(ValueError):
        is_loopback = is_loopback or ip_address(host).is_loopback
    return _loopback_session() if is_loopback else get_session()


@functools.cache
def _loopback_session() -> httpx2.Client:
    """Return the process's one session for hubs on this machine; open until the process ends."""
    session = httpx2.Client(trust_env=False)
    atexit.register(session.close)
    return session


def user_agent() -> str:
    """Return the name and version of the project and of the client library."""
    try:
        number = version("ws-pipeline")
    except PackageNotFoundError:  # a checkout that is not installed
        number = "0"
    return f"ws_pipeline/{number}; huggingface_hub/{version('huggingface_hub')}"
