"""Download over HTTP, resumed after a cut, each byte given on once and in order.

A resumed attempt asks for the rest (`Range`, `If-Range`). What comes back is believed by Content-Range and lengths, not
by the status: some servers answer a range with 200. A server that starts again at the first byte is read over the bytes
already had, and their digest must be the same; any other sign of another content ends the download as `input_changed`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import httpx

from lsi_ray.storage.http_exchange import Exchange
from lsi_ray.storage.pace import paced
from lsi_ray.storage.retry import RetryLoop
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import Fetched, Stat, TransferOptions

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")

# So many bytes make a cut an incident of a long transfer instead of one more failure in a row.
_PROGRESS = 1 << 20


def fetch_http(
    url: SecretUrl,
    sink: Callable[[bytes], object],
    *,
    max_bytes: int | None,
    version: str | None,
    options: TransferOptions,
) -> Fetched:
    loop = RetryLoop(options.retry, options.on_retry)
    with Exchange(url, "input", options) as exchange:
        download = _Download(exchange, sink, max_bytes, version, options, loop.progressed)
        loop.call(download.attempt)
    return Fetched(download.received, download.digest.hexdigest(), download.version or "")


def stat_http(url: SecretUrl, options: TransferOptions) -> Stat:
    """Size and version from a GET of the first byte, which a URL signed for GET allows."""

    def attempt() -> Stat:
        with exchange.send("GET", {"Range": "bytes=0-0"}) as response:
            part = _Part.of(response)
            return Stat(part.total, _version(response, part.total))

    with Exchange(url, "input", options) as exchange:
        return RetryLoop(options.retry, options.on_retry).call(attempt)


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a response's bytes begin in the object, and how long that is; None where the server does not say."""

    start: int | None
    total: int | None

    @classmethod
    def of(cls, response: httpx.Response) -> _Part:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if match is not None:  # "bytes 5-9/10"; with 416 "bytes */10"
            return cls(_number(match[1]), _number(match[2]))
        if response.status_code in (206, 416):
            return cls(None, None)
        return cls(0, _number(response.headers.get("Content-Length")))


class _Download:
    """What has been received so far, and one more attempt at the rest."""

    def __init__(
        self,
        exchange: Exchange,
        sink: Callable[[bytes], object],
        max_bytes: int | None,
        version: str | None,
        options: TransferOptions,
        progressed: Callable[[], None],
    ) -> None:
        self.received = 0
        self.digest = hashlib.sha256()
        self.version = version
        self._exchange = exchange
        self._sink = sink
        self._max_bytes = max_bytes
        self._options = options
        self._progressed = progressed
        self._total: int | None = None
        self._validator: str | None = None
        self._ranges = True
        self._fresh = 0

    def attempt(self) -> None:
        with self._exchange.send("GET", self._headers()) as response:
            part = _Part.of(response)
            if response.status_code == 416:
                return self._nothing_left(part)
            self._same_object(response, part)
            if part.start is None or part.start not in (0, self.received):
                self._ranges = False
                raise self._exchange.fault(f"asked from byte {self.received}, the server sent from {part.start}")
            body = paced(self._exchange.body(response), self._options, self._exchange.fault)
            if part.start < self.received:
                body = self._skip_known(body)
            self._receive(body)
        if self._total is not None and self.received < self._total:
            raise self._exchange.fault(f"cut after {self.received} of {self._total} bytes")
        return None

    def _nothing_left(self, part: _Part) -> None:
        """An object whose end was not announced was cut after its last byte; anything else has become shorter."""
        if part.total != self.received:
            raise self._changed("has become shorter")

    def _headers(self) -> dict[str, str]:
        if not self.received or not self._ranges:
            return {}
        conditional = {"If-Range": self._validator} if self._validator else {}
        return {"Range": f"bytes={self.received}-", **conditional}

    def _same_object(self, response: httpx.Response, part: _Part) -> None:
        """Learn from the first response what the object is; hold every later one against it."""
        version = _version(response, part.total)
        if self.version is not None and version != self.version:
            raise self._changed("has another version")
        if self._total is not None and part.total is not None and part.total != self._total:
            raise self._changed(f"has {part.total} bytes instead of {self._total}")
        self.version = version
        self._total = part.total if self._total is None else self._total
        self._validator = _validator(response)
        if self._total is not None:
            self._bound(self._total)

    def _skip_known(self, body: Iterator[bytes]) -> Iterator[bytes]:
        """The server began again: read over what is already had, and make sure that it is the same."""
        seen, left = hashlib.sha256(), self.received
        for chunk in body:
            known = chunk[:left]
            seen.update(known)
            left -= len(known)
            if left == 0:
                if seen.digest() != self.digest.digest():
                    raise self._changed("begins with other bytes than before")
                yield chunk[len(known) :]
                break
        else:
            raise self._changed("has become shorter")
        yield from body

    def _receive(self, body: Iterable[bytes]) -> None:
        for chunk in body:
            if not chunk:
                continue
            self._bound(self.received + len(chunk))
            self.digest.update(chunk)
            self.received += len(chunk)
            self._fresh += len(chunk)
            if self._fresh >= _PROGRESS:
                self._fresh = 0
                self._progressed()
            self._sink(chunk)

    def _bound(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise self._exchange.error("too_large", f"{size:,} bytes or more; at most {self._max_bytes:,} are accepted")
        if self._total is not None and size > self._total:
            raise self._changed(f"sent more than the {self._total} bytes it announced")

    def _changed(self, how: str) -> Exception:
        return self._exchange.error("changed", f"the object {how}: it was replaced while it was being read")


def _version(response: httpx.Response, total: int | None) -> str:
    headers = response.headers
    return str(headers.get("ETag") or f"{headers.get('Last-Modified', '')}/{'' if total is None else total}")


def _validator(response: httpx.Response) -> str | None:
    """What If-Range may hold: a strong ETag or a date."""
    etag = response.headers.get("ETag", "")
    found = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    return str(found) if found else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
