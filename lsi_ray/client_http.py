"""How `lsi_ray.client` talks: one request with its errors, and the one loop that repeats it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from lsi_ray import __version__
from lsi_ray.errors import LsiError

Answer = TypeVar("Answer")

_REPEATABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 120.0
_CHUNK_BYTES = 1 << 20
_BACK_OFF = wait_random_exponential(multiplier=0.25, max=30)


class ServiceRefused(LsiError):
    """What the service answered instead of 2xx; `status` is HTTP's. `may_repeat`: the very same request may go well
    later, after `retry_after_s` where that is known."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int,
        param: str | None = None,
        retry_after_s: float | None = None,
        may_repeat: bool = False,
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.param = param
        self.retry_after_s = retry_after_s
        self.may_repeat = may_repeat


class ServiceUnreachable(LsiError, ConnectionError):
    """No answer came, or it broke off."""

    def __init__(self, message: str) -> None:
        super().__init__("unreachable", message)


class Http:
    def __init__(
        self, base_url: str, token: str | None, timeout_s: float, attempts: int, sleep: Callable[[float], None]
    ) -> None:
        headers = {"User-Agent": f"lsi-ray/{__version__}"} | ({"Authorization": f"Bearer {token}"} if token else {})
        # Not through proxies that the environment names: a token is for the service alone.
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_s, trust_env=False)
        self._repeating = Retrying(
            retry=retry_if_exception(_may_repeat),
            stop=stop_after_attempt(attempts),
            wait=_wait_s,
            sleep=sleep,
            reraise=True,
        )

    def close(self) -> None:
        self._http.close()

    def repeat(self, send: Callable[[], Answer]) -> Answer:
        return self._repeating(send)

    def once(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Raises ServiceRefused, ServiceUnreachable."""
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if answer.is_error:
            raise _refusal(answer)
        return answer

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.repeat(lambda: self.once(method, path, **options))

    def lines(self, path: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The lines of a stream of JSON. Repeated until the first byte, not from then on."""
        answer = self.repeat(lambda: self._open(path, params))
        try:
            for line in answer.iter_lines():
                yield json.loads(line)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        except json.JSONDecodeError:
            raise ServiceUnreachable(f"{path}: a line of the answer is not whole") from None
        finally:
            answer.close()

    def copy(self, path: str, target: BinaryIO) -> None:
        self.repeat(lambda: self._copy(path, target))

    def _copy(self, path: str, target: BinaryIO) -> None:
        target.seek(0)
        target.truncate()
        answer = self._open(path, {})
        try:
            for chunk in answer.iter_bytes(_CHUNK_BYTES):
                target.write(chunk)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        finally:
            answer.close()

    def _open(self, path: str, params: Mapping[str, Any]) -> httpx.Response:
        try:
            answer = self._http.send(self._http.build_request("GET", path, params=params), stream=True)
            if answer.is_error:
                answer.read()
                answer.close()
                raise _refusal(answer)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        return answer

    def _unreachable(self, error: httpx.TransportError) -> ServiceUnreachable:
        what = str(error) or type(error).__name__
        return ServiceUnreachable(f"no whole answer from {self._http.base_url}: {what}")


def _refusal(answer: httpx.Response) -> ServiceRefused:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    error = _openai_error(body) or _lsi_error(body) or {"message": f"HTTP {answer.status_code} without an explanation"}
    retry_after = answer.headers.get("Retry-After", "")
    return ServiceRefused(
        str(error.get("code") or f"http_{answer.status_code}"),
        str(error["message"]),
        status=answer.status_code,
        param=error.get("param"),
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
        may_repeat=answer.status_code in _REPEATABLE and answer.headers.get("x-should-retry") != "false",
    )


def _openai_error(body: Any) -> dict[str, Any] | None:
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) and "message" in error else None


def _lsi_error(body: Any) -> dict[str, Any] | None:
    if not isinstance(body, dict) or "message" not in body:
        return None
    details = body.get("details") or [{}]
    code = details[0].get("code") if len(details) == 1 else body.get("type")
    return {"message": body["message"], "code": code, "param": details[0].get("field")}


def _may_repeat(error: BaseException) -> bool:
    if isinstance(error, ServiceRefused):
        return error.may_repeat and (error.retry_after_s or 0) <= _LONGEST_WAIT_S
    return isinstance(error, ServiceUnreachable)


def _wait_s(state: RetryCallState) -> float:
    """What the service asked for, or ever longer."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ServiceRefused) else None
    return _BACK_OFF(state) if asked is None else asked
