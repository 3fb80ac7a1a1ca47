"""A real S3 server on this machine behind a proxy that fails as told: it refuses, drops, cuts, stalls or corrupts."""

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.bucket_server import bucket_on_a_server

ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>told to fail</Message></Error>'
REFUSALS = {"slow_down": (503, "SlowDown"), "too_many": (429, "TooManyRequests"), "broken": (500, "InternalError")}


@dataclass(frozen=True)
class Request:
    """A request as it reached the proxy."""

    method: str
    path: str
    span: str
    """The header `Range`, empty without one."""
    sent: int = 0
    """Bytes of a body that answered a GET, as far as it was handed on."""


@dataclass
class FaultyStore:
    """`uri` is an empty bucket; `faults` holds (kind, for which requests), each used once.

    Kinds: "slow_down" (503), "too_many" (429), "broken" (500), "drop" (no answer), "cut" (half the body), "stall"
    (half the body, then silence), "corrupt" (some bytes are others), "late" (the answer comes after `late` seconds).
    """

    uri: str
    faults: list[tuple[str, Callable[[Request], bool]]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    late: float = 4.0
    quiet: float = 60.0
    stalled: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, kind: str, times: int = 1, method: str = "", name: str = "") -> None:
        """The next `times` requests of this method whose path contains `name` fail so."""
        self.faults += [(kind, lambda request: method in ("", request.method) and name in request.path)] * times

    def fault_of(self, request: Request) -> str:
        with self.lock:
            for number, (kind, concerns) in enumerate(self.faults):
                if concerns(request):
                    del self.faults[number]
                    return kind
        return ""

    def note(self, request: Request) -> None:
        with self.lock:
            self.requests.append(request)

    def got(self, name: str = "") -> list[Request]:
        """The GET requests of objects whose path contains `name`, those that failed included."""
        return [r for r in self.requests if r.method == "GET" and name in r.path and "list-type" not in r.path]


def _handler(store: FaultyStore, server: tuple[str, int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            body = self._body()
            request = Request(self.command, self.path, self.headers.get("Range", ""))
            kind = store.fault_of(request)
            if kind in REFUSALS:
                status, code = REFUSALS[kind]
                store.note(request)
                self._send(status, [("Content-Type", "application/xml")], ERROR.format(code).encode())
                return
            if kind == "drop":
                store.note(request)
                self.close_connection = True
                return
            if kind == "late":
                store.stalled.set()
                time.sleep(store.late)
            upstream = http.client.HTTPConnection(*server)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
            headers["Content-Length"] = str(len(body))
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
            if kind == "corrupt":
                content = bytes(byte ^ 0xFF for byte in content[:64]) + content[64:]
            sent = self._send(response.status, response.getheaders(), content, kind)
            store.note(Request(request.method, request.path, request.span, sent))
            upstream.close()

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def _send(self, status: int, headers: list[tuple[str, str]], content: bytes, kind: str = "") -> int:
            self.send_response_only(status)
            length = str(len(content))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value  # of a HEAD
                elif name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            handed = content[: len(content) // 2] if kind in ("cut", "stall") else content
            self.wfile.write(handed)
            self.wfile.flush()
            if kind == "stall":
                store.stalled.set()
                time.sleep(store.quiet)
            if kind in ("cut", "stall"):
                self.close_connection = True
            return len(handed)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    return Handler


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hung up is no news here."""


@contextmanager
def faulty_store(name: str) -> Iterator[FaultyStore]:
    """An empty bucket `s3://name`; the environment points at the proxy before it as a user's would."""
    with bucket_on_a_server(name) as uri, pytest.MonkeyPatch.context() as patch:
        behind = urlsplit(os.environ["AWS_ENDPOINT_URL"])
        store = FaultyStore(uri)
        proxy = _Proxy(("127.0.0.1", 0), _handler(store, (behind.hostname or "", behind.port or 0)))
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
        yield store
        proxy.shutdown()
