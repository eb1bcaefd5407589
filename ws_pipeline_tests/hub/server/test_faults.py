"""Each fault of the simulated hub, and what the client makes of it."""

from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ws_pipeline.errors import ConfigError, HubError
from ws_pipeline.hub.client import HubClient
from ws_pipeline.hub.server import serve_app_in_thread
from ws_pipeline.hub.server.faults import FAULTS, Fault, FaultInjector
from ws_pipeline_tests.hub.scripted_hub import SHA, connect

ROWS = [{"id": f"owner/name{number}"} for number in range(20)]


async def list_models(request: Request) -> Response:
    """Two pages, the first with a Link."""
    if "cursor" in request.query_params:
        return JSONResponse(ROWS)
    return JSONResponse(ROWS, headers={"Link": '</api/models?cursor=2>; rel="next"'})


async def send_range(_: Request) -> Response:
    headers = {"Content-Range": "bytes 0-7/9", "X-Repo-Commit": SHA}
    return Response(b"12345678", status_code=206, headers=headers)


def make_injector(share: float, kinds: tuple[Fault, ...], *, seed: int = 0) -> FaultInjector:
    routes = [Route("/api/models", list_models), Route("/{path:path}", send_range)]
    app = Starlette(routes=routes)
    return FaultInjector(app, share=share, seed=seed, kinds=kinds, hang_seconds=0.01)


def read_pages(client: HubClient) -> object:
    return list(client.list_pages())


def read_range(client: HubClient) -> object:
    return client.read_range("a/b", SHA, "f", 0, 8)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_an_error_and_never_a_wrong_page(kind: Fault) -> None:
    ask: Callable[[HubClient], object] = read_range if kind in ("range", "revision") else read_pages
    injector = make_injector(1.0, (kind,))
    with serve_app_in_thread(Starlette(routes=[Mount("/", app=injector)])) as endpoint:
        with pytest.raises(HubError) as caught:
            ask(connect(endpoint))
        assert "elsewhere" not in str(caught.value)
    assert injector.num_faults >= 3  # tried again each time


def test_some_faults_are_survived() -> None:
    injector = make_injector(0.3, FAULTS, seed=1)
    with serve_app_in_thread(Starlette(routes=[Mount("/", app=injector)])) as endpoint:
        for _ in range(10):
            try:
                assert list(connect(endpoint).list_models()) == ROWS * 2
            except HubError:
                continue
    assert 0 < injector.num_faults < injector.num_requests


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_faults_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        make_injector(share, FAULTS)
