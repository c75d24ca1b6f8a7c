"""An object store on 127.0.0.1 that misbehaves as told: one fault for each request, in order, then none."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CANARY = "c4n4ry51gn4tur3"
QUERY = f"X-Amz-Signature={CANARY}&X-Amz-Credential={CANARY}&X-Amz-Date=20260101T000000Z&X-Amz-Expires=999999999"
Fault = Callable[["Request"], bool]


@dataclass
class FaultServer:
    content: bytes
    etag: str | None = None
    faults: list[Fault] = field(default_factory=list)
    sent: int = 0
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/bucket/in.tar") -> str:
        return f"http://127.0.0.1:{self.port}{path}?{QUERY}"

    def replace(self, content: bytes) -> None:
        self.content, self.etag = content, etag_of(content)


def etag_of(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


@contextmanager
def serving(content: bytes, certificate: Path | None = None) -> Iterator[FaultServer]:
    """With a certificate (and its key, in one file) it speaks TLS."""
    state = FaultServer(content, etag_of(content))
    server = Quiet(("127.0.0.1", 0), type("Bound", (Request,), {"state": state}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""


class Request(BaseHTTPRequestHandler):
    state: FaultServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.state.seen.append(("GET", dict(self.headers)))
        if not (self.state.faults and self.state.faults.pop(0)(self)):
            self.give()

    def do_PUT(self) -> None:
        self.state.seen.append(("PUT", dict(self.headers)))
        if self.state.faults and self.state.faults.pop(0)(self):
            return
        self.take()
        self.answer(200, {"ETag": etag_of(self.state.stored[-1])})

    def take(self) -> None:
        self.state.stored.append(self.rfile.read(int(self.headers["Content-Length"])))

    def first(self) -> int:
        """Where the range asked for begins; 0 when there is none that holds."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        return int(asked[1]) if asked and condition in (None, self.state.etag) else 0

    def give(
        self, *, first: int | None = None, until: int | None = None, status: int | None = None, ranged: bool = True
    ) -> None:
        """The object from `first` on; the headers promise all of it, the body ends at `until`."""
        content = self.state.content
        first = (self.first() if ranged else 0) if first is None else first
        partial = ranged and "Range" in self.headers and (first or self.headers["Range"].startswith("bytes=0-"))
        headers = {
            "Content-Length": str(len(content) - first),
            **({"ETag": self.state.etag} if self.state.etag else {}),
        }
        if partial:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.answer(status or (206 if partial else 200), headers)
        body = content[first:until]
        self.state.sent += len(body)
        try:
            self.wfile.write(body)
        except OSError:  # the client has seen enough
            self.close_connection = True

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self, reset: bool = False) -> None:
        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def cut(at: int, reset: bool = False) -> Fault:
    def fault(request: Request) -> bool:
        request.give(until=at)
        request.hang_up(reset)
        return True

    return fault


def says(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Fault:
    def fault(request: Request) -> bool:
        if request.command == "PUT":
            request.take()
            request.state.stored.pop()
        request.answer(status, headers or {}, body)
        return True

    return fault


def sends_from(first: int) -> Fault:
    """A range other than the one that was asked for."""
    return lambda request: request.give(first=first) is None


def range_with_200(request: Request) -> bool:
    """As rclone's S3 server answers."""
    request.give(status=200)
    return True


def ignores_range(request: Request) -> bool:
    request.give(ranged=False)
    return True


def drops(request: Request) -> bool:
    """Not even a status line."""
    request.hang_up(reset=True)
    return True


def changes_to(content: bytes) -> Fault:
    def fault(request: Request) -> bool:
        request.state.replace(content)
        return False

    return fault


def crawls(request: Request) -> bool:
    """A byte now and then."""
    request.answer(200, {"Content-Length": str(len(request.state.content)), "ETag": request.state.etag or ""})
    try:
        for byte in request.state.content[:40]:
            request.wfile.write(bytes([byte]))
            request.state.sent += 1
            time.sleep(0.01)
    except OSError:  # the client has given up, as it should
        pass
    request.hang_up()
    return True


def stores_in_silence(request: Request) -> bool:
    """The object is written and the answer is lost."""
    request.take()
    request.hang_up(reset=True)
    return True
