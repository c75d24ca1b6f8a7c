"""The network: an object store behind pre-signed URLs, and whoever takes webhooks. One httpx transport answers for all.

Faults: a connection that never is, a cut before or after the effect, 429 and 5xx, slowness, URLs that were revoked.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from sim_orders import HOOK, IN, OUT

EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
_Client = httpx.Client


class _Body(httpx.SyncByteStream):
    def __init__(self, data: bytes, *, cut: bool = False) -> None:
        self._data, self._cut = data, cut

    def __iter__(self) -> Iterator[bytes]:
        yield self._data
        if self._cut:
            raise httpx.ReadError("reset by peer")


def _answer(
    status: int, data: bytes = b"", headers: dict[str, str] | None = None, *, cut: bool = False
) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=_Body(data, cut=cut))


class Network:
    """`pause` is called while a request is under way; `put` and `told` of what has taken effect."""

    def __init__(
        self,
        dice: random.Random,
        pause: Callable[[str], None],
        wait: Callable[[float], None],
        put: Callable[[str, bytes], None],
        told: Callable[[str, bytes], None],
    ) -> None:
        self._dice, self._pause, self._wait, self._put, self._told = dice, pause, wait, put, told
        self.objects: dict[str, bytes] = {}
        self.revoked: set[str] = set()
        self.trouble = 0.0
        self.down = False
        self.faults: Counter[str] = Counter()

    def handle(self, request: httpx.Request) -> httpx.Response:
        path, host = request.url.path, request.url.host
        self._pause(f"net {request.method} {path}")
        if self.down:
            self._fault("down")
            raise httpx.ConnectError("no route to host")
        if path in self.revoked:
            self._fault("403")
            return _answer(403, EXPIRED)
        act = {IN: self._get, OUT: self._stored, HOOK: self._taken}[host]
        if self._dice.random() >= self.trouble:
            return act(request, path)
        return self._troubled(request, path, act)

    def _troubled(self, request: httpx.Request, path: str, act: Callable[..., httpx.Response]) -> httpx.Response:
        match kind := self._fault(
            self._dice.choice(["refused", "status", "cut before", "cut after", "slow", "partial"])
        ):
            case "refused":
                raise httpx.ConnectError("refused")
            case "status":
                return _answer(self._dice.choice([408, 429, 500, 502, 503, 504]))
            case "cut before":
                raise httpx.WriteError("broken pipe")
            case "slow":
                self._wait(self._dice.choice([20.0, 90.0]))
                return act(request, path)
            case "partial":
                return act(request, path, cut=True) if request.method == "GET" else _answer(408)
        act(request, path)
        self._pause(kind)
        raise httpx.ReadError("reset by peer")

    def _fault(self, kind: str) -> str:
        self.faults[f"network {kind}"] += 1
        return kind

    def _get(self, request: httpx.Request, path: str, *, cut: bool = False) -> httpx.Response:
        data = self.objects.get(path)
        if data is None:
            return _answer(404)
        asked = request.headers.get("Range")
        start, _, end = asked.removeprefix("bytes=").partition("-") if asked else ("0", "", "")
        part = data[int(start) : int(end) + 1 if end else None]
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Content-Length": str(len(part))}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
        status = 206 if asked else 200
        if cut and len(part) > 1:
            return _answer(status, part[: self._dice.randrange(1, len(part))], headers, cut=True)
        return _answer(status, part, headers)

    def _stored(self, request: httpx.Request, path: str) -> httpx.Response:
        body = request.read()
        self._put(path, body)
        self.objects[path] = body
        return _answer(200, headers={"ETag": '"x"'})

    def _taken(self, request: httpx.Request, path: str) -> httpx.Response:
        self._told(path, request.read())
        return _answer(200)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Every httpx client made in the block talks to this network."""

        def client(**options: Any) -> httpx.Client:
            kept = {key: options[key] for key in ("timeout", "trust_env", "follow_redirects") if key in options}
            return _Client(transport=httpx.MockTransport(self.handle), **kept)

        httpx.Client = client  # type: ignore[assignment, misc]
        try:
            yield
        finally:
            httpx.Client = _Client  # type: ignore[misc]
