"""A client for a hub as this project connects to one: with the caller's token and its budget.

What it is: the one place that decides what a hub is shown and where the count of its requests is
kept, for runs of Dagster, drivers and shells alike. Reads the environment; does no other I/O.
"""

import os
from pathlib import Path

from ws_pipeline.hub.budget import RateBudget, budget_path
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.retries import DEFAULT_RETRIES, RetryPolicy

ENDPOINT_VARIABLE = "WS_HUB_ENDPOINT"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - its name


def find_endpoint(stated: str = "") -> str:
    """Return the hub's URL: what was stated, else $WS_HUB_ENDPOINT; "" for the embedded hub."""
    return stated or os.environ.get(ENDPOINT_VARIABLE) or ""


def connect_remote(
    endpoint: str, home: Path, *, retries: RetryPolicy = DEFAULT_RETRIES
) -> HubClient:
    """Return a client that shows the token of $HF_TOKEN and shares its budget with all of a home.

    Args:
        endpoint: Of a hub other than the embedded one, which asks for no token and has no limits.
        home: WS_HOME.
        retries: How often and how long failed requests are tried again.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    path = budget_path(home / "budget", endpoint, token)
    return HubClient(endpoint, token, retries=retries, budget=RateBudget(path))
