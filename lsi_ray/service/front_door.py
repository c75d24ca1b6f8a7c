"""What guards the service's port before a request is one: time and size of headers, idle and stuck connections.

uvicorn, which is the proxy of Ray Serve, has no limit of these: a connection that sends nothing, headers that never end
or an answer that is never read hold a connection, and memory, for ever. Bodies are the gate's business (api/gate.py).

Serve calls `guard` in each of its proxies when RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it in their environment:
`lsi serve` sets it for a Ray of its own, whoever starts the nodes of another one for those (docs/service.md).
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lsi_ray.service.backpressure import bound_proxy

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    headers_s: float = 20.0
    """From the first byte to the end of the headers; also how long a new connection may say nothing."""
    header_bytes: int = 16 * 2**10
    """Of the request's line and its headers."""
    linger_s: float = 5.0
    """How long the rest of a body may take that was answered before it came."""
    unread_s: float = 60.0
    """How long a client may leave what is written to it unread."""
    connections: int = 4096
    """At once; then the one that has waited longest without a request goes. Less, where the process may open fewer."""


def guard() -> list[Any]:
    """For Serve: no middlewares, but another protocol for the server that it starts next, and bodies with a bound."""
    bound_proxy()
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:FrontDoor"
    return []


class FrontDoor(HttpToolsProtocol):
    """One connection. It is waiting from its start, or the end of a request, to the end of the next headers."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._waiting_since: float | None = self.loop.time()
        self._incoming = False  # a request has begun and is not complete
        self._header_bytes = 0
        self._feeding = 0  # bytes that are being parsed, none of which belongs to an earlier request
        self._dry_bytes = 0  # since the last piece of a body: trailers, extensions of chunks
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._cut_in(self.limits.headers_s)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cut_in(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._waiting_since is not None:
            if not self._header_bytes:
                self._cut_in(self.limits.headers_s)
            self._header_bytes += len(data)
            self._feeding = len(data)
        self._dry_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > self.limits.header_bytes:
            self._refuse_headers()
        elif self._incoming and not self._in_headers and self._dry_bytes > self.limits.header_bytes:
            self._cut()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._incoming = True
        self._header_bytes = self._feeding

    def on_headers_complete(self) -> None:
        if self._header_size() > self.limits.header_bytes:
            raise httptools.HttpParserError("headers too large")
        self._waiting_since = None
        self._dry_bytes = 0
        self._cut_in(None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._dry_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._incoming = False
        self._feeding = 0
        super().on_message_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
            self._cut_in(self.timeout_keep_alive)  # uvicorn's own timer went with the rest of the body

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._incoming:  # answered early; what is left of the body is read and dropped
            self._cut_in(self.limits.linger_s)
        elif not self.pipeline:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn says of headers that cannot be parsed, and of our own error."""
        if self._in_headers and self._header_size() > self.limits.header_bytes:
            self._refuse_headers()
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.unread_s, self._cut)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    @property
    def _in_headers(self) -> bool:
        return self._incoming and self._waiting_since is not None

    def _header_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _wait(self) -> None:
        """For the next request; uvicorn's own timer ends a connection that stays silent from here."""
        self._waiting_since = self.loop.time()
        self._header_bytes = 0
        self._cut_in(None)

    def _make_room(self) -> None:
        if len(self.connections) > min(self.limits.connections, _room()):
            waiting = (one for one in self.connections if isinstance(one, FrontDoor) and one._waiting_since is not None)
            min(waiting, key=lambda one: one._waiting_since or 0.0)._cut()

    def _cut_in(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._cut) if seconds is not None else None

    def _cut(self) -> None:
        self.transport.abort()

    def _refuse_headers(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._cut()  # an answer to an earlier request is on its way: nothing may come between
            return
        self.transport.write(_TOO_LARGE)
        self.transport.close()


def _room() -> int:
    """Half of the files that the process may open: Ray and its workers take some."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft // 2 if soft != resource.RLIM_INFINITY else 1 << 20
