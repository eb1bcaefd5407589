"""The simulated hub behind the Hub's API: listings in both orders, filters, details, renames.

Belongs here: routes and cursors. Does not: the population (``simulation``), faults (``faults``),
sockets (``endpoint``). There are no files behind it: what can be had is what a crawl asks for. Does
no I/O.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.server.faults import FaultInjector
from ws_pipeline.hub.server.index import decode_cursor, encode_cursor
from ws_pipeline.hub.server.routes import MAX_PAGE, ApiError
from ws_pipeline.hub.server.simulation import SimulatedHub

ADVANCE = "/simulation/advance"
"""``POST`` with ``changes=N`` lets virtual time pass; not part of any real hub."""


def make_simulation_app(hub: SimulatedHub) -> Starlette:
    """Build the application that serves a simulated hub."""
    model = "/api/models/{owner}/{name}"
    routes = [
        Route("/api/models", functools.partial(_list_models, hub)),
        Route(model, functools.partial(_show_model, hub)),
        Route(model + "/revision/{revision}", functools.partial(_show_model, hub)),
        Route(ADVANCE, functools.partial(_advance, hub), methods=["POST"]),
    ]
    handlers = {ApiError: _show_error, ConfigError: _show_misuse}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


def add_faults(app: Starlette, *, share: float, seed: int, hang_seconds: float = 45.0) -> Starlette:
    """Return an application that fails at a share of the requests; see ``faults``."""
    faulty = FaultInjector(app, share=share, seed=seed, hang_seconds=hang_seconds)
    return Starlette(routes=[Mount("/", app=faulty)])


# The routes are coroutines, so that one request at a time sees the population.


async def _list_models(hub: SimulatedHub, request: Request) -> Response:
    params = request.query_params
    limit = min(int(params.get("limit", MAX_PAGE)), MAX_PAGE)
    tags = set(params.getlist("filter"))
    cursor = decode_cursor(params["cursor"]) if "cursor" in params else None
    if params.get("sort") == "lastModified":
        pairs = hub.recent_first((int(cursor[0]), int(cursor[1])) if cursor else None)
    elif params.get("direction") == "1":
        pairs = ((-1, i) for i in hub.oldest_first(int(cursor[1]) + 1 if cursor else 0))
    else:
        raise ConfigError("this hub lists by createdAt ascending or lastModified descending")
    shown = list(itertools.islice(_matching(hub, pairs, tags), limit + 1))
    response = JSONResponse([row for _, row in shown[:limit]])
    if len(shown) > limit:
        change, index = shown[limit - 1][0]
        kept = [pair for pair in params.multi_items() if pair[0] != "cursor"]
        query = urlencode([*kept, ("cursor", encode_cursor(str(change), str(index)))])
        response.headers["Link"] = f'<{request.url.replace(query=query)}>; rel="next"'
    return response


def _matching(
    hub: SimulatedHub, pairs: Iterator[tuple[int, int]], tags: set[str]
) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    for pair in pairs:
        row = hub.row(pair[1])
        if tags <= set(row["tags"]):
            yield pair, row


async def _show_model(hub: SimulatedHub, request: Request) -> Response:
    repo_id = f"{request.path_params['owner']}/{request.path_params['name']}"
    index = hub.find(repo_id)
    if index is None:
        raise ApiError(404, "RepoNotFound", "Repository not found")
    if repo_id != hub.name(index):
        url = request.url.replace(path=request.url.path.replace(repo_id, hub.name(index), 1))
        return RedirectResponse(url, status_code=307)
    if request.path_params.get("revision", "main") not in ("main", hub.sha(index)):
        raise ApiError(404, "RevisionNotFound", "Invalid rev id")
    return JSONResponse(hub.detail(index))


async def _advance(hub: SimulatedHub, request: Request) -> Response:
    hub.advance(int(request.query_params["changes"]))
    return JSONResponse({"num_changes": hub.num_changes, "num_repos": hub.num_repos})


def _show_error(_request: Request, error: ApiError) -> Response:
    message = {"error": error.detail}
    return JSONResponse(message, status_code=error.status_code, headers=error.headers)


def _show_misuse(_request: Request, error: ConfigError) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)
