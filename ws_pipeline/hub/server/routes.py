"""The routes of the embedded hub: requests of the Hub API to answers.

Belongs here: paths, query parameters, status codes, headers. Does not: what a repo is
(``repo``), which repos match (``index``), the JSON (``views``), sockets
(``endpoint``). Reads the served folder; writes nothing.

Any token is taken as valid: this hub stands on loopback or behind a cluster's own door, and tells
private and gated repos apart only so that clients meet them as they would on the public hub.

Source: https://huggingface.co/docs/hub/api; ``huggingface_hub`` 2.4, ``utils/_http.py`` for the
error codes by which the client chooses its exceptions.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.server.files import FileDigest
from ws_pipeline.hub.server.index import DATASETS_FOLDER, HubFolder, ListQuery, select_page
from ws_pipeline.hub.server.repo import RepoFolder
from ws_pipeline.hub.server.views import (
    FIELDS,
    IN_FULL_LISTING,
    IN_INFO,
    IN_LISTING,
    list_tree,
    show_entry,
    show_repo,
)

MAX_PAGE = 1000
"""Repos of one listing page, as on the public hub."""
MAX_FORM_BYTES = 4 * 1024 * 1024
"""A paths-info request for 20,000 paths of 200 bytes."""
KNOWN_PARAMETERS = frozenset(
    {"filter", "author", "search", "pipeline_tag", "gated", "sort", "direction", "limit", "cursor"}
    | {"full", "cardData", "config", "expand"}
)
MAIN_REVISIONS = ("main", "HEAD", "refs/heads/main")


class ApiError(HTTPException):
    """An answer with the headers by which the client chooses its exception."""

    def __init__(self, status: int, code: str, message: str) -> None:
        plain = "".join(c if " " <= c <= "~" else "?" for c in message)[:200]  # fits a header
        headers = {"X-Error-Message": plain} | ({"X-Error-Code": code} if code else {})
        super().__init__(status, message, headers)


def make_app(folder: Path, *, page_size: int = MAX_PAGE) -> Starlette:
    """Build the application that serves ``folder/<owner>/<name>/`` as model repos.

    Args:
        folder: Looked at anew with every request.
        page_size: Most repos in one listing page.

    Raises:
        MissingInputError: `folder` is not a folder.
    """
    hub = HubFolder(folder)
    model = "/api/models/{owner}/{name}"
    routes = [
        Route("/", partial(_home, hub)),
        Route("/api/models", partial(_list_models, hub, page_size)),
        Route(model, partial(_model_info, hub)),
        Route(model + "/revision/{revision:path}", partial(_model_info, hub)),
        Route(model + "/tree/{rest:path}", partial(_tree, hub)),
        Route(model + "/paths-info/{revision:path}", partial(_paths_info, hub), methods=["POST"]),
        Route("/api/models/{rest:path}", _no_repo),
        *_dataset_routes(folder / DATASETS_FOLDER),
        Route("/{owner}/{name}/resolve/{rest:path}", partial(_resolve, hub)),
        Route("/{name}/resolve/{rest:path}", _no_repo),
    ]
    handlers = {HTTPException: _show_error, ConfigError: _show_refusal, OSError: _show_busy}
    return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]


def _dataset_routes(folder: Path) -> list[Route]:
    """Build the routes of data-set repos: info and files of one, no listing."""

    def answer(request: Request, respond: Callable[[HubFolder, Request], Response]) -> Response:
        if not folder.is_dir():  # it may come later
            return _no_repo(request)
        return respond(HubFolder(folder), request)

    info = "/api/datasets/{owner}/{name}"
    return [
        Route(info, partial(answer, respond=_model_info)),
        Route(info + "/revision/{revision:path}", partial(answer, respond=_model_info)),
        Route(info + "/tree/{rest:path}", partial(answer, respond=_tree)),
        Route("/datasets/{owner}/{name}/resolve/{rest:path}", partial(answer, respond=_resolve)),
    ]


def _home(hub: HubFolder, _request: Request) -> Response:
    return PlainTextResponse(f"Weight Space Pipeline hub: {len(hub.repos())} repos\n")


def _list_models(hub: HubFolder, page_size: int, request: Request) -> Response:
    unknown = sorted(set(request.query_params) - KNOWN_PARAMETERS)
    if unknown:
        raise ConfigError(f"this hub does not know the query parameter {', '.join(unknown)}")
    fields = _listing_fields(request)
    page, cursor = select_page(hub.repos(), _parse_query(request, page_size))
    response = JSONResponse([show_repo(repo, fields) for repo in page])
    if cursor:
        pairs = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
        url = request.url.replace(query=urlencode([*pairs, ("cursor", cursor)]))
        response.headers["Link"] = f'<{url}>; rel="next"'
    return response


def _parse_query(request: Request, page_size: int) -> ListQuery:
    params = request.query_params
    filters = [tag for value in params.getlist("filter") for tag in value.split(",") if tag]
    try:
        limit = int(params.get("limit", page_size))
    except ValueError:
        raise ConfigError(f"limit has to be a number, not {params['limit']!r}") from None
    return ListQuery(
        filters=tuple(filters),
        author=params.get("author", ""),
        search=params.get("search", ""),
        pipeline_tag=params.get("pipeline_tag", ""),
        gated=_is_true(params["gated"]) if "gated" in params else None,
        sort=params.get("sort", "trendingScore"),
        descending=params.get("direction", "-1") != "1",
        limit=min(limit, page_size),
        cursor=params.get("cursor", ""),
        with_private=_has_token(request),
    )


def _is_true(text: str) -> bool:
    return text.lower() in {"1", "true", "yes"}


def _has_token(request: Request) -> bool:
    return bool(request.headers.get("authorization"))


def _expanded(request: Request) -> list[str]:
    names = request.query_params.getlist("expand") + request.query_params.getlist("expand[]")
    unknown = sorted(set(names) - set(FIELDS))
    if unknown:
        raise ConfigError(f"expand has to be among {', '.join(FIELDS)}, not {', '.join(unknown)}")
    return names


def _listing_fields(request: Request) -> list[str]:
    if expanded := _expanded(request):
        return expanded
    params = request.query_params
    fields = list(IN_FULL_LISTING if _is_true(params.get("full", "")) else IN_LISTING)
    return fields + [name for name in ("cardData", "config") if _is_true(params.get(name, ""))]


def _model_info(hub: HubFolder, request: Request) -> Response:
    repo = _find_repo(hub, request)
    if "revision" in request.path_params:
        _check_revision(repo, request.path_params["revision"])
    fields = _expanded(request) or IN_INFO
    blobs = _is_true(request.query_params.get("blobs", ""))
    return JSONResponse(show_repo(repo, fields, blobs=blobs))


def _find_repo(hub: HubFolder, request: Request) -> RepoFolder:
    repo_id = f"{request.path_params['owner']}/{request.path_params['name']}"
    repo = hub.repo(repo_id)
    if repo is None:
        raise ApiError(404, "RepoNotFound", "Repository not found")
    if repo.private and not _has_token(request):
        raise ApiError(401, "RepoNotFound", "Repository not found")  # its existence is a secret
    return repo


def _check_revision(repo: RepoFolder, revision: str) -> None:
    if revision not in MAIN_REVISIONS and revision != repo.sha:
        raise ApiError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def _no_repo(_request: Request) -> Response:
    raise ApiError(404, "RepoNotFound", "Repository not found")


def _split_revision(repo: RepoFolder, rest: str) -> str:
    """Check the revision that heads `rest` and return the path behind it."""
    for revision in (*MAIN_REVISIONS, repo.sha):
        if rest == revision or rest.startswith(revision + "/"):
            return rest.removeprefix(revision).removeprefix("/")
    raise ApiError(404, "RevisionNotFound", f"Invalid rev id in {rest}")


def _tree(hub: HubFolder, request: Request) -> Response:
    repo = _find_repo(hub, request)
    folder = _split_revision(repo, request.path_params["rest"]).strip("/")
    params = request.query_params
    paths = list_tree(repo, folder, recursive=_is_true(params.get("recursive", "")))
    if folder and not paths:
        raise ApiError(404, "EntryNotFound", f"{folder} does not exist on this revision")
    expand = _is_true(params.get("expand", ""))
    return JSONResponse([show_entry(repo, path, expand=expand) for path in paths])


async def _paths_info(hub: HubFolder, request: Request) -> Response:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise ApiError(413, "", f"the form is larger than {MAX_FORM_BYTES} bytes")
    form = parse_qs(body.decode("utf-8", errors="replace"))
    return await run_in_threadpool(_show_paths, hub, request, form)


def _show_paths(hub: HubFolder, request: Request, form: dict[str, list[str]]) -> Response:
    repo = _find_repo(hub, request)
    _check_revision(repo, request.path_params["revision"])
    expand = _is_true(form.get("expand", [""])[0])
    paths = (path.strip("/") for path in form.get("paths", []))
    entries = [show_entry(repo, path, expand=expand) for path in paths]
    return JSONResponse([entry for entry in entries if entry is not None])


def _resolve(hub: HubFolder, request: Request) -> Response:
    repo = _find_repo(hub, request)
    path = _split_revision(repo, request.path_params["rest"])
    if repo.disabled:
        raise ApiError(
            403, "", "Access to this resource is disabled."
        )  # the client knows it by heart
    if repo.gated and not _has_token(request):
        raise ApiError(403, "GatedRepo", f"Access to model {repo.repo_id} is restricted")
    digest = repo.digests.get(path)  # only paths that the scan allowed are in here
    if digest is None:
        raise ApiError(404, "EntryNotFound", "Entry not found")
    file = repo.folder / path
    status = file.stat()
    headers = resolve_headers(digest, status.st_size, repo.sha)
    kind = "application/octet-stream" if digest.sha256 else "text/plain; charset=utf-8"
    return FileResponse(file, headers=headers, media_type=kind, stat_result=status)


def resolve_headers(digest: FileDigest, num_bytes: int, revision: str) -> dict[str, str]:
    """Return the headers that say which content is sent; LFS files are also named as such."""
    headers = {
        "ETag": f'"{digest.etag}"',
        "X-Repo-Commit": revision,
        "X-Content-Type-Options": "nosniff",
    }
    if digest.sha256:
        headers |= {"X-Linked-Etag": f'"{digest.sha256}"', "X-Linked-Size": str(num_bytes)}
    return headers


def _show_error(_request: Request, error: HTTPException) -> Response:
    return JSONResponse(
        {"error": error.detail}, status_code=error.status_code, headers=error.headers
    )


def _show_refusal(request: Request, error: ConfigError) -> Response:
    return _show_error(request, ApiError(400, "", str(error)))


def _show_busy(_request: Request, _error: OSError) -> Response:
    """A file went away between the look at the folder and the read."""
    message = "the folder is changing, try again"
    return JSONResponse({"error": message}, status_code=503, headers={"Retry-After": "1"})
