"""A proxy on loopback in front of an object store, which has bad moments when it is told to."""

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ANSWERS = {
    "slow down": (503, "SlowDown"), "internal": (500, "InternalError"),
    "denied": (403, "AccessDenied"), "no bucket": (404, "NoSuchBucket"),
}  # fmt: skip
HOP = {"transfer-encoding", "connection", "expect", "date", "server", "content-length"}
"""Headers that are of one connection alone, or that the proxy writes itself."""


@dataclass
class Weather:
    """What the proxy does to some requests.

    Attributes:
        port: of the server behind it.
        below: what their path ends with; none are touched while it is empty.
        kind: a key of ANSWERS, or 'reset' for a connection that breaks.
        times: how often for each path.
        methods: of those requests.
        struck: requests that had it, by method and path.
    """

    port: int
    below: str = ""
    kind: str = "slow down"
    times: int = 0
    methods: tuple[str, ...] = ("PUT",)
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, method: str, path: str) -> bool:
        with self.lock:
            at = method, urlsplit(path).path
            if not self.below or not at[1].endswith(self.below) or method not in self.methods:
                return False
            self.struck[at] += 1
            return self.struck[at] <= self.times


class Proxy(BaseHTTPRequestHandler):
    """Passes a request on, or does to it what the weather is."""

    protocol_version = "HTTP/1.1"
    weather: Weather

    def handle_any(self) -> None:
        body = self._body()
        if self.weather.strikes(self.command, self.path):
            self._strike()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.weather.port, timeout=60)
        kept = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
        upstream.request(self.command, self.path, body, kept)
        answer = upstream.getresponse()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, headers, answer.read(), length)
        upstream.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _strike(self) -> None:
        self.close_connection = True
        if self.weather.kind == "reset":
            linger = struct.pack("ii", 1, 0)  # a reset, not an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            return
        status, code = ANSWERS[self.weather.kind]
        text = f"<Error><Code>{code}</Code><Message>as it was told</Message></Error>"
        self._answer(status, [("Content-Type", "application/xml")], text.encode(), None)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def proxied(port: int) -> Generator[tuple[int, Weather]]:
    """The port of a proxy in front of a server on loopback, and its weather.

    Args:
        port: of the server.
    """
    weather = Weather(port)
    handler = type("Handler", (Proxy,), {"weather": weather})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, weather
    finally:
        server.shutdown()
        server.server_close()
