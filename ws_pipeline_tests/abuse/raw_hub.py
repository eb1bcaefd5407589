"""A server that sends exactly the bytes a test gives it, and remembers every request's head."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

MAX_HEAD_BYTES = 64 * 1024


@dataclass
class RawHub:
    """One loopback origin."""

    answer: Callable[[str], Iterable[bytes]] = lambda _: []
    heads: list[str] = field(default_factory=list)
    url: str = ""

    def reset(self, answer: Callable[[str], Iterable[bytes]] = lambda _: []) -> None:
        self.answer = answer
        self.heads = []

    @contextlib.contextmanager
    def serve(self) -> Iterator["RawHub"]:
        hub = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(10)
                with contextlib.suppress(OSError):  # the client had enough
                    head = b""
                    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES:
                        data = self.request.recv(65536)
                        if not data:
                            break
                        head += data
                    text = head.decode("latin-1")
                    hub.heads.append(text)
                    for piece in hub.answer(text):
                        self.request.sendall(piece)
                    self.request.shutdown(socket.SHUT_WR)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
