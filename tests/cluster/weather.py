"""A proxy on loopback in front of an object store, which has bad moments when it is told to."""

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ANSWERS = {
    "slow down": (503, "SlowDown"), "internal": (500, "InternalError"),
    "denied": (403, "AccessDenied"), "no bucket": (404, "NoSuchBucket"),
}  # fmt: skip

HOP = {"transfer-encoding", "connection", "expect", "date", "server", "content-length"}
"""Headers that are of one connection alone, or that the proxy writes itself."""


class Weather:
    """What the proxy does to requests that write below a path.

    Attributes:
        below: of which paths; none are touched while it is empty.
        kind: a key of ANSWERS, or 'reset' for a connection that breaks.
        times: how often for each path.
        methods: of which requests.
        struck: requests that had it, by method and path.
    """

    def __init__(self) -> None:
        self.below, self.kind, self.times = "", "slow down", 0
        self.methods: tuple[str, ...] = ("PUT",)
        self.struck: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def strikes(self, method: str, path: str) -> bool:
        at = method, path.partition("?")[0]
        with self._lock:
            if not self.below or self.below not in path or method not in self.methods:
                return False
            if self.struck[at] >= self.times:
                return False
            self.struck[at] += 1
            return True


@contextmanager
def proxied(port: int) -> Generator[tuple[int, Weather]]:
    """The port of a proxy in front of a server on loopback, and its weather.

    Args:
        port: of the server.
    """
    weather = Weather()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self._body()
            if weather.strikes(self.command, urlsplit(self.path).path):
                self._strike()
                return
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            left = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
            upstream.request(self.command, self.path, body, left)
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP or (name, self.command) == ("Content-Length", "HEAD"):
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            upstream.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _strike(self) -> None:
            self.close_connection = True
            if weather.kind == "reset":
                linger = struct.pack("ii", 1, 0)  # a reset, not an orderly end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
                return
            status, code = ANSWERS[weather.kind]
            text = f"<Error><Code>{code}</Code><Message>as it was told</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, weather
    finally:
        server.shutdown()
        server.server_close()
