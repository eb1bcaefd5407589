"""Where a hub listens: a folder of repos, or any application, served from here or from a thread.

Belongs here: sockets, starting and stopping. Does not: what is answered (``routes``).
"""

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from ws_pipeline.errors import HubError, Reason, RefusedError
from ws_pipeline.hub.server.routes import make_app

START_SECONDS = 30.0
"""Far more than the 0.1 s that a start takes on an idle core."""
STOP_SECONDS = 2
"""Grace for requests that are under way."""


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve `folder` until interrupted.

    Args:
        folder: Holds ``<owner>/<name>/`` repos; looked at anew with every request.
        host: Address to listen on.
        port: 0 takes a free one.
        announce: Called with the endpoint's URL once the port is ours.

    Raises:
        RefusedError: The port is in use or cannot be listened on (``PORT_IN_USE``).
        MissingInputError: `folder` is not a folder.
    """
    serve_app(make_app(folder), host=host, port=port, announce=announce)


def serve_app(
    app: Starlette,
    *,
    host: str = "127.0.0.1",
    port: int,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve any application as :func:`serve` does."""
    listener = _listen(host, port)
    if announce is not None:
        announce(_endpoint(listener))
    _make_server(app).run(sockets=[listener])


@contextlib.contextmanager
def serve_in_thread(folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve `folder` from a thread while a ``with`` block runs; yields the endpoint's URL."""
    app = make_app(folder)
    with serve_app_in_thread(app, host=host, port=port) as endpoint:
        yield endpoint


@contextlib.contextmanager
def serve_app_in_thread(app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve any application as :func:`serve_in_thread` does."""
    listener = _listen(host, port)
    server = _make_server(app)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="embedded-hub", daemon=True
    )
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise HubError("The embedded hub did not start; look at the log above for why.")
            time.sleep(0.005)
        yield _endpoint(listener)
    finally:
        server.should_exit = True
        thread.join(timeout=START_SECONDS)
        listener.close()


def _make_server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,  # logging belongs to the program, not to this server
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise RefusedError(_explain(error, host, port), reason=Reason.PORT_IN_USE) from error
    return listener


def _explain(error: OSError | OverflowError, host: str, port: int) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use by another program; stop it, or choose another port "
            "with --port (0 takes a free one)."
        )
    return f"Port {port} of {host} cannot be listened on ({error}); choose another one with --port."


def _endpoint(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
