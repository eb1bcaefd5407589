"""An HTTP server on loopback that answers with the statuses of a list, the last one for ever."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ScriptedServer:
    """What is to be answered, and what was asked."""

    statuses: Sequence[int]
    body: bytes = b"[]"
    paths: list[str] = field(default_factory=list)
    url: str = ""

    def take(self, path: str) -> int:
        """Note a request; its status."""
        self.paths.append(path)
        return self.statuses[min(len(self.paths), len(self.statuses)) - 1]


@contextmanager
def serve_statuses(*statuses: int, body: bytes = b"[]") -> Iterator[ScriptedServer]:
    """Serve them."""
    script = ScriptedServer(statuses, body)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(script.body)

        def do_HEAD(self) -> None:
            self.send_response(script.take(self.path))
            self.send_header("Content-Length", str(len(script.body)))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
