"""The simulated hub behind the Hub's API: listings in both orders, details, files, renames.

Belongs here: routes, cursors, who may see what. Does not: the population (``simulation``), what its
files hold (``simulation_files``), faults (``faults``), sockets (``endpoint``). Does no I/O.
"""

import itertools
import json
import re
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
from ws_pipeline.hub.server.routes import MAX_PAGE, ApiError, resolve_headers
from ws_pipeline.hub.server.simulation import SimulatedHub
from ws_pipeline.hub.server.simulation_files import SimulatedFiles

ADVANCE = "/simulation/advance"
"""``POST`` with ``changes=N`` lets virtual time pass; not part of any real hub."""

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


def make_simulation_app(hub: SimulatedHub, *, changes_per_request: float = 0.0) -> Starlette:
    """Build the application that serves a simulated hub.

    Args:
        hub: The population.
        changes_per_request: How much virtual time passes while a client is at work.
    """
    routes = _Routes(hub, changes_per_request)
    model = "/api/models/{owner}/{name}"
    table = [
        Route("/api/models", routes.list_models),
        Route(model, routes.show_model),
        Route(model + "/revision/{revision}", routes.show_model),
        Route("/{owner}/{name}/resolve/{revision}/{path:path}", routes.send_file),
        Route(ADVANCE, routes.advance, methods=["POST"]),
    ]
    handlers = {ApiError: _show_error, ConfigError: _show_misuse}
    return Starlette(routes=table, exception_handlers=handlers)  # type: ignore[arg-type]


def add_faults(app: Starlette, *, share: float, seed: int, hang_seconds: float = 45.0) -> Starlette:
    """Return an application that fails at a share of the requests; see ``faults``."""
    faulty = FaultInjector(app, share=share, seed=seed, hang_seconds=hang_seconds)
    return Starlette(routes=[Mount("/", app=faulty)])


class _Routes:
    """All coroutines, so that one request at a time sees the population."""

    def __init__(self, hub: SimulatedHub, changes_per_request: float) -> None:
        self.hub = hub
        self.files = SimulatedFiles(hub)
        self.changes_per_request = changes_per_request
        self.changes_due = 0.0

    def _let_time_pass(self) -> None:
        self.changes_due += self.changes_per_request
        self.hub.advance(int(self.changes_due))
        self.changes_due -= int(self.changes_due)

    async def list_models(self, request: Request) -> Response:
        self._let_time_pass()
        hub, params = self.hub, request.query_params
        limit = min(int(params.get("limit", MAX_PAGE)), MAX_PAGE)
        cursor = decode_cursor(params["cursor"]) if "cursor" in params else None
        if params.get("sort") == "lastModified":
            pairs = hub.recent_first((int(cursor[0]), int(cursor[1])) if cursor else None)
        elif params.get("direction") == "1":
            pairs = ((-1, i) for i in hub.oldest_first(int(cursor[1]) + 1 if cursor else 0))
        else:
            raise ConfigError("this hub lists by createdAt ascending or lastModified descending")
        shown = list(itertools.islice(self._matching(request, pairs), limit + 1))
        response = _answer_json([row for _, row in shown[:limit]])
        if len(shown) > limit:
            change, index = shown[limit - 1][0]
            kept = [pair for pair in params.multi_items() if pair[0] != "cursor"]
            query = urlencode([*kept, ("cursor", encode_cursor(str(change), str(index)))])
            response.headers["Link"] = f'<{request.url.replace(query=query)}>; rel="next"'
        return response

    def _matching(
        self, request: Request, pairs: Iterator[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        tags = set(request.query_params.getlist("filter"))
        for pair in pairs:
            row = self.hub.row(pair[1])
            if tags <= set(row["tags"]) and (_has_token(request) or not row["private"]):
                yield pair, row

    async def show_model(self, request: Request) -> Response:
        self._let_time_pass()
        index = self._find(request)
        if isinstance(index, Response):
            return index
        push = self._find_push(request, index)
        row = self.hub.row(index) | {"sha": self.hub.sha(index, push)}
        siblings = self.files.siblings(index, push)
        return _answer_json(row | {"cardData": {"license": "apache-2.0"}, "siblings": siblings})

    async def send_file(self, request: Request) -> Response:
        self._let_time_pass()
        hub, index = self.hub, self._find(request)
        if isinstance(index, Response):
            return index
        if hub.is_disabled(index):
            raise ApiError(403, "", "Access to this resource is disabled.")
        if hub.gated(index) and not _has_token(request):
            raise ApiError(403, "GatedRepo", f"Access to model {hub.name(index)} is restricted")
        push = self._find_push(request, index)
        file = self.files.read(index, push).get(request.path_params["path"])
        if file is None:
            raise ApiError(404, "EntryNotFound", "Entry not found")
        headers = resolve_headers(file.digest, len(file.data), hub.sha(index, push))
        return _answer_range(file.data, headers, request.headers.get("range", ""))

    def _find(self, request: Request) -> int | Response:
        """Return a repo's number, or the redirect to its present name."""
        repo_id = f"{request.path_params['owner']}/{request.path_params['name']}"
        index = self.hub.find(repo_id)
        if index is None:
            raise ApiError(404, "RepoNotFound", "Repository not found")
        if self.hub.is_private(index) and not _has_token(request):
            raise ApiError(401, "RepoNotFound", "Repository not found")
        name = self.hub.name(index)
        if repo_id == name:
            return index
        url = request.url.replace(path=request.url.path.replace(repo_id, name, 1))
        return RedirectResponse(url, status_code=307)

    def _find_push(self, request: Request, index: int) -> int:
        revision = request.path_params.get("revision", "main")
        newest = self.hub.state(index).num_pushes
        push = newest if revision == "main" else self.hub.find_push(index, revision)
        if push is None:
            raise ApiError(404, "RevisionNotFound", "Invalid rev id")
        return push

    async def advance(self, request: Request) -> Response:
        self.hub.advance(int(request.query_params["changes"]))
        return JSONResponse({"num_changes": self.hub.num_changes, "num_repos": self.hub.num_repos})


def _has_token(request: Request) -> bool:
    return bool(request.headers.get("authorization"))


def _answer_json(value: object) -> Response:
    # ASCII, since a hostile name may hold what UTF-8 cannot.
    return Response(json.dumps(value, separators=(",", ":")), media_type="application/json")


def _answer_range(data: bytes, headers: dict[str, str], asked: str) -> Response:
    """Send a file, or the one range of it that was asked for."""
    match = _RANGE.fullmatch(asked)
    if match is None:
        return Response(data, headers=headers, media_type="application/octet-stream")
    start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
    if start > end:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers = headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
    part = data[start : end + 1]
    return Response(part, 206, headers=headers, media_type="application/octet-stream")


def _show_error(_request: Request, error: ApiError) -> Response:
    message = {"error": error.detail}
    return JSONResponse(message, status_code=error.status_code, headers=error.headers)


def _show_misuse(_request: Request, error: ConfigError) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)
