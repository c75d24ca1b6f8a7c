"""What every request passes before its route: who asks, how often, and how much it brings.

Refusals come before anything of the body is read. A body is read whole here, because it is small (64 KB), with a
limit on its size and on its time; uploads stream past; of a GET nobody wants one. Errors that nobody expected end here
as `internal_error`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lsi_ray.errors import LsiError
from lsi_ray.service.api.errors import INTERNAL, Refusal, log_fault, refusal_of
from lsi_ray.service.api.rates import READING, RateLimiter, Told, write_kind
from lsi_ray.service.api.respond import respond
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.backend import READ, WRITE, Backend, Caller, ServiceError
from lsi_ray.service.web import paths
from lsi_ray.service.web.cookie import read_cookie

OPEN_PATHS = frozenset({"/v1/inference/health", "/openapi.json", "/docs"})
UPLOADS = frozenset({("POST", "/v1/files"), ("POST", paths.UPLOAD)})
_STRANGERS_BYTES = 4096
"""Of a body of nobody we know: the form that signs in."""
_TOKEN = re.compile(r"Bearer +([\x21-\x7e]{1,256})", re.I)


class Gate:
    def __init__(self, app: ASGIApp, backend: Backend, settings: ApiSettings, limiter: RateLimiter) -> None:
        self._app = app
        self._backend = backend
        self._settings = settings
        self._limiter = limiter
        self._told = Told(limiter.clock)
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watched = _Watched(send)
        try:
            await self._admit(scope, receive, watched)
        except LsiError as error:
            await self._refuse(scope, receive, watched, refusal_of(error))
        except Exception as error:  # the last place before the server, which would answer with plain text
            log_fault(f"{scope['method']} {scope['path']} failed", error)
            await self._refuse(scope, receive, watched, INTERNAL)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS or paths.is_open(scope["path"]):
            await self._pass(scope, receive, send, min(_STRANGERS_BYTES, self._settings.max_body_bytes))
            return
        caller = await self._caller(scope)
        await self._check_rate(caller, scope)
        scope.setdefault("state", {})["caller"] = caller
        with self._one_of(caller):
            await self._pass(scope, receive, send, self._settings.max_body_bytes)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        if scope["method"] not in READING and (scope["method"], scope["path"]) not in UPLOADS:
            receive = await self._with_body(scope, receive, max_body_bytes)
        await self._app(scope, receive, send)

    @contextmanager
    def _one_of(self, caller: Caller) -> Iterator[None]:
        """Requests of one caller at once: those that trickle for hours must leave room for others."""
        if self._running[caller.id] >= self._settings.max_concurrent:
            raise ServiceError("rate_limited", "Too many requests at once: wait for one to end", retry_after_s=1)
        self._running[caller.id] += 1
        try:
            yield
        finally:
            self._running[caller.id] -= 1
            if not self._running[caller.id]:
                del self._running[caller.id]

    async def _refuse(self, scope: Scope, receive: Receive, watched: _Watched, refusal: Refusal) -> None:
        if watched.started:
            # Too late for a status: only a connection that breaks tells that the body is not whole.
            raise ConnectionAbortedError("the answer broke off")
        await respond(scope["path"], refusal)(scope, receive, watched)

    async def _caller(self, scope: Scope) -> Caller:
        caller = await (self._signed_in(scope) if paths.is_page(scope["path"]) else self._with_token(scope))
        needed = READ if scope["method"] in READING else WRITE
        if needed not in caller.scopes:
            raise ServiceError("forbidden", f"This token lacks the scope {needed!r}")
        return caller

    async def _with_token(self, scope: Scope) -> Caller:
        match = _TOKEN.fullmatch(Headers(scope=scope).get("authorization", ""))
        caller = await self._backend.authenticate(match[1]) if match else None
        if caller is None:
            raise ServiceError(
                "unauthenticated", "Give a valid token (lsi-...) in the Authorization header, of the scheme Bearer"
            )
        return caller

    async def _signed_in(self, scope: Scope) -> Caller:
        """Pages know a caller by a cookie, and nothing else does: no other site can make a browser use the API."""
        cookie = read_cookie(scope)
        caller = await self._backend.signed_in(cookie) if cookie is not None else None
        if caller is None:
            raise ServiceError("unauthenticated", "Sign in to see this page")
        return caller

    async def _check_rate(self, caller: Caller, scope: Scope) -> None:
        if scope["method"] in READING:
            wait_s = self._limiter.wait_s(caller.id, "reads")
        else:
            kind = write_kind(scope["path"])
            if not (wait_s := self._told.wait_s(caller.id, kind)):
                wait_s = await self._backend.write_wait_s(caller, kind)
                self._told.wait(caller.id, kind, wait_s)
        if wait_s:
            raise ServiceError("rate_limited", "Too many requests: slow down", retry_after_s=wait_s)

    async def _with_body(self, scope: Scope, receive: Receive, limit: int) -> Receive:
        """Read the body, and return a `receive` that gives it again, once."""
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                body, gone = await _read(receive, limit)
        except TimeoutError:
            raise ServiceError("request_timeout", "The body of the request did not come") from None
        return receive if gone else _replay(body, receive)


class _Watched:
    """`send` that knows whether the answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


async def _read(receive: Receive, limit: int) -> tuple[bytes, bool]:
    """The body, and whether the client went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body, True
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return body, False


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


def _too_large(limit: int) -> ServiceError:
    return ServiceError("payload_too_large", f"The body is larger than {limit:,} bytes")
