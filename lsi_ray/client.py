"""A small synchronous client of the service, over both of its surfaces.

    with Client("http://127.0.0.1:8000", token) as client:
        batch = client.submit(input=presigned_get, output=presigned_put, model="Qwen/Qwen3-VL-8B-Instruct")
        batch = client.wait(batch.id, progress=lambda b: print(b.progress.fraction))

Requests are repeated after lost connections, 408, 429 and 5xx, as long as the service says that this may help; a POST
that makes something carries an Idempotency-Key, so that a repeat makes nothing twice. Tokens and URLs are never shown.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lsi_ray.client_http import Http, ServiceRefused, ServiceUnreachable
from lsi_ray.client_views import Batch, File, Model, Result, read_batch, read_file, read_model

__all__ = ["Batch", "Client", "File", "Model", "Result", "ServiceRefused", "ServiceUnreachable"]

DEFAULT_URL = "http://127.0.0.1:8000"
_BATCHES, _FILES = "/v1/inference/batches", "/v1/files"
_POLL_S = (0.5, 15.0)


class Client:
    def __init__(
        self,
        base_url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`base_url` and `token` default to `LSI_URL` and `LSI_TOKEN` of the environment."""
        self.base_url = (base_url or os.environ.get("LSI_URL") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
        token = token or os.environ.get("LSI_TOKEN")
        self._sleep = sleep
        self._clock = clock
        self._http = Http(self.base_url, token, timeout_s, attempts, sleep)

    def __repr__(self) -> str:
        return f"Client({self.base_url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- batches

    def submit(
        self,
        *,
        input: str,
        output: str | None = None,
        endpoint: str = "/v1/chat/completions",
        model: str | None = None,
        window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        priority: int = 0,
        webhook: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """`input` is a pre-signed URL, with `output` another one, or the id of an uploaded file, and then the results
        become files. Raises ServiceRefused. Calls with one `idempotency_key` make one batch; without, each makes one.
        """
        body = {"endpoint": endpoint, "completion_window": window, "priority": priority}
        body |= {"metadata": dict(metadata or {})} | _given(webhook=dict(webhook) if webhook else None)
        key = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if output is None:
            body |= {"input_file_id": input} | _given(model=model)
            return read_batch(self._json("POST", "/v1/batches", json=body, headers=key))
        body |= {"input_file_uri": input, "output_file_uri": output, "store": "s3"} | _given(model_id=model)
        return read_batch(self._json("POST", _BATCHES, json=body, headers=key)[0])

    def get(self, batch_id: str) -> Batch:
        return read_batch(self._json("GET", f"{_BATCHES}/{batch_id}"))

    def list(self, *, limit: int = 100, after: int = 0, archived: bool = False) -> list[Batch]:
        """Newest first; `after` leaves out that many."""
        params = {"limit": limit, "after": after, "archived": archived}
        return [read_batch(body) for body in self._json("GET", _BATCHES, params=params)]

    def wait(
        self, batch_id: str, *, timeout_s: float | None = None, progress: Callable[[Batch], object] | None = None
    ) -> Batch:
        """Ask until the batch has ended, ever less often; `progress` gets every answer. Raises TimeoutError."""
        started, pause = self._clock(), _POLL_S[0]
        while True:
            batch = self.get(batch_id)
            if progress is not None:
                progress(batch)
            if batch.done:
                return batch
            if timeout_s is not None and self._clock() - started + pause > timeout_s:
                raise TimeoutError(f"batch {batch_id} is {batch.status} after {timeout_s:g} s")
            self._sleep(pause)
            pause = min(pause * 1.3, _POLL_S[1])

    def results(self, batch_id: str, *, after: int | None = None, follow: bool = False) -> Iterator[Result]:
        """Finished rows above row `after`, in row order, while the batch runs. Goes on by itself where a connection
        broke; with `follow` it waits for further rows until the batch has ended."""
        pause = _POLL_S[0]
        while True:
            before, end = after, None
            try:
                for line in self._http.lines(f"{_BATCHES}/{batch_id}/results", _given(after=after)):
                    if "row" in line:
                        after = line["row"]
                        yield Result(line["row"], line["kind"] == "error", line["line"])
                    else:
                        end = line
            except ServiceUnreachable:
                if after == before:
                    raise  # what is repeated must get on
            if end is not None and (end["complete"] or not follow):
                return
            if end is None and after == before:
                raise ServiceUnreachable(f"the results of {batch_id} broke off")
            pause = _POLL_S[0] if after != before else min(pause * 1.3, _POLL_S[1])
            self._sleep(pause)

    def cancel(self, batch_id: str) -> Batch:
        return read_batch(self._json("POST", f"{_BATCHES}/{batch_id}/cancel"))

    def retry(
        self,
        batch_id: str,
        *,
        failed_only: bool = False,
        input: str | None = None,
        output: str | None = None,
        window: str | None = None,
    ) -> Batch:
        """A new batch from one that has ended."""
        body = {"failed_only": failed_only, **_changes(input, output, window)}
        key = {"Idempotency-Key": uuid.uuid4().hex}
        return read_batch(self._json("POST", f"{_BATCHES}/{batch_id}/retry", json=body, headers=key))

    def patch(
        self,
        batch_id: str,
        *,
        window: str | None = None,
        priority: int | None = None,
        input: str | None = None,
        output: str | None = None,
    ) -> Batch:
        """Change a batch that has not ended; a window counts from its creation."""
        body = _changes(input, output, window) | _given(priority=priority)
        return read_batch(self._json("PATCH", f"{_BATCHES}/{batch_id}", json=body))

    def archive(self, batch_id: str) -> None:
        self._http.send("POST", f"{_BATCHES}/{batch_id}/archive")

    def models(self) -> tuple[Model, ...]:
        return tuple(read_model(body) for body in self._json("GET", "/v1/inference/models"))

    def health(self) -> dict[str, Any]:
        return dict(self._json("GET", "/v1/inference/health"))

    # -- files

    def upload(self, path: str | Path) -> File:
        """A jsonl of requests, or a tar or tar.gz of jobs.jsonl and files/; streamed."""
        path = Path(path)

        def send() -> Any:
            with open(path, "rb") as file:
                form = {"file": (path.name, file, "application/octet-stream")}
                return self._http.once("POST", _FILES, data={"purpose": "batch"}, files=form).json()

        return read_file(self._http.repeat(send))

    def files(self, *, purpose: str | None = None, limit: int = 10_000) -> tuple[File, ...]:
        """Newest first."""
        params = {"limit": limit} | _given(purpose=purpose)
        return tuple(read_file(body) for body in self._json("GET", _FILES, params=params)["data"])

    def file(self, file_id: str) -> File:
        return read_file(self._json("GET", f"{_FILES}/{file_id}"))

    def download(self, file_id: str, path: str | Path) -> None:
        """To `path`, which appears only when the file is whole."""
        path = Path(path)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with open(part, "wb") as target:
                self._http.copy(f"{_FILES}/{file_id}/content", target)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def delete_file(self, file_id: str) -> None:
        self._http.send("DELETE", f"{_FILES}/{file_id}")

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._http.send(method, path, **options).json()


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _changes(input: str | None, output: str | None, window: str | None) -> dict[str, Any]:
    return _given(input_file_uri=input, output_file_uri=output, completion_window=window)
