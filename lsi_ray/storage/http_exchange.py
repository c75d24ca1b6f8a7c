"""One HTTP request to a storage server: guarded, pinned, without redirects, and its failure told apart by kind.

Storage is sent only GET and PUT: a pre-signed URL is signed for one method, and HEAD would be refused. Webhooks are a
POST. Proxies of the environment and netrc are not read; `SSL_CERT_FILE` is, for storage with a certificate authority of
its own.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx

from lsi_ray.errors import StorageError
from lsi_ray.storage.deadline import Deadline
from lsi_ray.storage.guard import admit
from lsi_ray.storage.redact import redact
from lsi_ray.storage.retry import TransientError
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import Side, TransferOptions

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
# Codes of S3 that come with status 400 although a repetition helps.
_TRANSIENT_CODES = (b"<Code>RequestTimeout</Code>", b"<Code>SlowDown</Code>", b"<Code>InternalError</Code>")
# S3 and its likes, Google, and Azure say it in these words.
_EXPIRED = (b"request has expired", b"expiredtoken", b"signature not valid in the specified time frame")
_BODY_READ = 4096


class Exchange:
    """A client for the attempts of one transfer to one URL."""

    def __init__(self, url: SecretUrl, side: Side, options: TransferOptions) -> None:
        self.url = url
        self.side = side
        self._policy = options.urls
        self._now = options.now
        self._attempt = 0
        self._deadline = Deadline(options.whole_s)
        timeout = httpx.Timeout(options.silence_s, connect=options.connect_s)
        self._client = httpx.Client(timeout=timeout, trust_env=False, follow_redirects=False, verify=_trusted())

    def __enter__(self) -> Exchange:
        self._deadline.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline.stop()
        self._client.close()

    @contextmanager
    def send(
        self, method: str, headers: Mapping[str, str], content: Iterator[bytes] | None = None
    ) -> Iterator[httpx.Response]:
        """The response with its body unread. Raises StorageError for every status but 2xx and 416."""
        with self._faults():
            request = self._request(method, headers, content)
            response = self._client.send(request, stream=True)
        try:
            if not response.is_success and response.status_code != 416:
                raise self._refusal(response)
            yield response
        finally:
            response.close()

    def body(self, response: httpx.Response) -> Iterator[bytes]:
        """The bytes as stored, whatever Content-Encoding says. A fault of the network is a TransientError."""
        chunks = response.iter_raw()
        while True:
            with self._faults():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def error(self, code: str, message: str) -> StorageError:
        return StorageError(f"{self.side}_{code}", f"{self.url}: {message}")

    def fault(self, message: str, retry_after: float | None = None) -> TransientError:
        return TransientError(f"{self.side}_unavailable", f"{self.url}: {message}", retry_after)

    def _request(self, method: str, headers: Mapping[str, str], content: Iterator[bytes] | None) -> httpx.Request:
        destination = admit(self.url, self._policy)
        url, extensions = destination.url, dict[str, Any](trace=self._deadline.trace)
        # httpx would ask for gzip and say who it is.
        sent = {"Accept-Encoding": "identity", "User-Agent": "lsi-ray", **headers}
        if destination.addresses:
            sent["Host"] = url.netloc.decode("ascii")
            extensions["sni_hostname"] = url.host
            url = url.copy_with(host=destination.addresses[self._attempt % len(destination.addresses)])
            self._attempt += 1
        return self._client.build_request(method, url, headers=sent, content=content, extensions=extensions)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except httpx.LocalProtocolError as error:  # we ask for what cannot be asked for: no use in asking again
            raise self.error("rejected", redact(str(error))) from None
        except (httpx.TransportError, OSError) as error:
            if self._deadline.over:
                raise self.fault(f"not done after {self._deadline.seconds:.0f} s") from None
            if _is_bad_certificate(error):
                raise self.error("untrusted", redact(str(error))) from None
            raise self.fault(f"{type(error).__name__}: {redact(str(error))}") from None

    def _refusal(self, response: httpx.Response) -> StorageError:
        status, body = response.status_code, self._start_of_body(response)
        said = f"the server answered {status}{_reason(body)}"
        if status in _TRANSIENT_STATUS or any(code in body for code in _TRANSIENT_CODES):
            return self.fault(said, _retry_after(response, self._now()))
        if response.is_redirect:
            return self.error("rejected", f"the server answered {status}, a redirect; redirects are not followed")
        if 400 <= status < 500 and (any(words in body.lower() for words in _EXPIRED) or self._is_past()):
            return self.error("url_expired", f"the URL has expired ({said})")
        if status == 413 or b"<Code>EntityTooLarge</Code>" in body:
            return self.error("too_large", said)
        named = {401: "forbidden", 403: "forbidden", 404: "not_found", 410: "not_found"}
        return self.error(named.get(status, "rejected"), said)

    def _start_of_body(self, response: httpx.Response) -> bytes:
        """As much as an error document needs; a server that stalls in it has said enough with its status."""
        start = b""
        try:
            for chunk in response.iter_raw(_BODY_READ):
                start += chunk
                if len(start) >= _BODY_READ:
                    break
        except httpx.TransportError:
            pass
        return start[:_BODY_READ]

    def _is_past(self) -> bool:
        """Only used to name a refusal that has happened, so the two clocks need not agree."""
        return self.url.expires_at is not None and self.url.expires_at < self._now()


@cache
def _trusted() -> ssl.SSLContext:
    """OpenSSL reads these variables itself; httpx does only together with the proxies that we do not want.

    Cached: reading the certificates takes 20-28 ms.
    """
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context()
    return httpx.create_ssl_context(trust_env=False)


def _is_bad_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(response: httpx.Response, now: float) -> float | None:
    """Seconds, or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError):
        return None


def _reason(body: bytes) -> str:
    """S3's short code, such as " AccessDenied". Nothing else of a body is repeated: it may hold what was signed."""
    begin, end = body.find(b"<Code>"), body.find(b"</Code>")
    code = body[begin + 6 : end].decode("ascii", "replace") if 0 <= begin < end else ""
    return f" {code}" if code.isalnum() and len(code) <= 64 else ""
