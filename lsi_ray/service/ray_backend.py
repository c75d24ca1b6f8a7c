"""The API's backend over the service's actor. Stateless: any number of replicas, started and killed at any time.

Bytes of files and finished results do not pass through the actor: replicas read and write the work dir themselves, so
they run where it is (its node, or any node when it is on shared storage).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayTaskError

from lsi_ray.archive.messages import Kind
from lsi_ray.errors import LsiError
from lsi_ray.ledger.records import Batch, SegmentRef
from lsi_ray.ledger.service_records import File, Moment, SignIn, Token
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service import row_sample
from lsi_ray.service.backend import (
    BatchView,
    Caller,
    FileContent,
    FileView,
    ModelView,
    Page,
    Patch,
    Result,
    Retry,
    ServiceError,
    Submission,
    Upload,
    WriteKind,
)
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.file_store import FileStore, new_file_id
from lsi_ray.service.page_views import ClusterView, SampleRow
from lsi_ray.service.partial import finished_rows
from lsi_ray.service.thumbnails import Thumbnails

_TOKEN_CACHED_S = 5.0
_CHUNK = 1 << 20
_RESULTS_AT_ONCE = 256
T = TypeVar("T")


class RayBackend:
    def __init__(self, actor: Any, work: Path, deployment: Deployment) -> None:
        self._actor = actor
        self._work = WorkDir(work)
        self._deployment = deployment
        self._files = FileStore(work)
        self._callers: dict[tuple[str, str], tuple[float, Caller | None]] = {}
        self._thumbnails = Thumbnails()

    async def authenticate(self, token: str) -> Caller | None:
        """Answers are kept for five seconds: so long a revoked token may go on."""
        return await self._known(("token", token), self._call, "check_token", token)

    async def sign_in(self, token: str) -> SignIn | None:
        signed: SignIn | None = await self._page("sign_in", token)
        return signed

    async def signed_in(self, text: str) -> Caller | None:
        return await self._known(("cookie", text), self._page, "signed_in", text)

    async def sign_out(self, text: str) -> None:
        await self._page("sign_out", text)
        self._callers.pop(("cookie", text), None)

    async def _known(self, key: tuple[str, str], ask: Callable[..., Awaitable[Any]], *question: str) -> Caller | None:
        known = self._callers.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        found: Token | None = await ask(*question)
        caller = Caller(found.caller, found.name, frozenset(found.scopes)) if found is not None else None
        if len(self._callers) > 10_000:
            self._callers.clear()
        self._callers[key] = (time.monotonic() + _TOKEN_CACHED_S, caller)
        return caller

    async def write_wait_s(self, caller: Caller, kind: WriteKind) -> float:
        wait_s: float = await self._call("write_wait_s", caller.id, kind)
        return wait_s

    async def health(self) -> dict[str, Any]:
        health: dict[str, Any] = await self._call("health")
        return health

    async def models(self) -> tuple[ModelView, ...]:
        models: tuple[ModelView, ...] = await self._call("models")
        return models

    async def submit(self, caller: Caller, submission: Submission) -> tuple[BatchView, bool]:
        made: tuple[BatchView, bool] = await self._ask("submit", caller, submission)
        return made

    async def get(self, caller: Caller, batch_id: str) -> BatchView:
        return await self._view("get", caller, batch_id)

    async def list(
        self, caller: Caller, *, limit: int, offset: int = 0, after_id: str | None = None, archived: bool = False
    ) -> Page[BatchView]:
        page: Page[BatchView] = await self._ask(
            "list", caller, limit=limit, offset=offset, after_id=after_id, archived=archived
        )
        return page

    async def cancel(self, caller: Caller, batch_id: str) -> BatchView:
        return await self._view("cancel", caller, batch_id)

    async def retry(self, caller: Caller, batch_id: str, retry: Retry) -> tuple[BatchView, bool]:
        made: tuple[BatchView, bool] = await self._ask("retry", caller, batch_id, retry)
        return made

    async def archive(self, caller: Caller, batch_id: str) -> None:
        await self._ask("archive", caller, batch_id)

    async def patch(self, caller: Caller, batch_id: str, patch: Patch) -> BatchView:
        return await self._view("patch", caller, batch_id, patch)

    async def results(self, caller: Caller, batch_id: str, after_row: int) -> AsyncIterator[Result]:
        served, segments, failures = await self._call("result_files", caller, batch_id)
        if served.batch.erased:
            raise ServiceError("results_gone", f"{batch_id} has ended, and nothing of it is kept here")
        if not served.batch.shard_rows:
            return
        config = self._deployment.config(served.batch.model)
        folder = self._work.batch(batch_id)
        rows = finished_rows(served.batch, folder, segments, failures, config, after_row)
        try:
            while some := await asyncio.to_thread(lambda: list(islice(rows, _RESULTS_AT_ONCE))):
                for result in some:
                    yield result
        except (FileNotFoundError, LsiError) as error:
            raise ServiceError("results_gone", f"{batch_id} has ended meanwhile") from error

    # -- files

    async def create_file(self, caller: Caller, upload: Upload) -> FileView:
        file_id = new_file_id()
        with _disk_faults():
            size = await self._store(upload.chunks, file_id)
        now = time.time()
        lifetime = upload.expires_after_s or self._deployment.settings.keep.files_s
        record = File(file_id, caller.id, upload.filename, size, upload.purpose, now, now + lifetime)
        view: FileView = await self._call("ask_files", "add", caller, record)
        return view

    async def _store(self, chunks: AsyncIterator[bytes], file_id: str) -> int:
        temporary, file = self._files.begin()
        try:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
            return await asyncio.to_thread(self._files.finish, temporary, file, file_id)
        except BaseException:
            with suppress(OSError):  # what cannot be written may be in its buffer still
                self._files.abandon(temporary, file)
            raise

    async def files(
        self, caller: Caller, *, purpose: str | None, limit: int, after_id: str | None, descending: bool = True
    ) -> Page[FileView]:
        page: Page[FileView] = await self._call(
            "ask_files", "list", caller, purpose=purpose, limit=limit, after_id=after_id, descending=descending
        )
        return page

    async def file(self, caller: Caller, file_id: str) -> FileView:
        view: FileView = await self._call("ask_files", "get", caller, file_id)
        return view

    async def file_content(self, caller: Caller, file_id: str) -> FileContent:
        view = await self.file(caller, file_id)
        try:
            opened = open(self._files.path(file_id), "rb")  # noqa: SIM115 - closed when its bytes are sent
        except FileNotFoundError:
            raise ServiceError("not_found", f"no file {file_id!r}") from None
        return FileContent(view.filename, view.bytes, _chunks(iter(lambda: opened.read(_CHUNK), b""), opened.close))

    async def delete_file(self, caller: Caller, file_id: str) -> None:
        await self._call("ask_files", "delete", caller, file_id)

    # -- for the web page

    async def pace(self, caller: Caller, batch_id: str) -> tuple[Moment, ...]:
        moments: tuple[Moment, ...] = await self._page("pace", caller, batch_id)
        return moments

    async def cluster(self) -> ClusterView:
        view: ClusterView = await self._page("cluster")
        return view

    async def sample(self, caller: Caller, batch_id: str, most: int) -> tuple[SampleRow, ...]:
        batch, segments = await self._here(caller, batch_id)
        if not batch.shard_rows or not segments:
            return ()
        config, folder = self._deployment.config(batch.model), self._work.batch(batch_id)
        with _erased_meanwhile(batch_id):
            return await asyncio.to_thread(row_sample.sample, batch, folder, segments, config, most)

    async def thumbnail(self, caller: Caller, batch_id: str, position: int, number: int) -> bytes:
        batch, _ = await self._here(caller, batch_id)
        if not batch.plan_rows:
            raise ServiceError("not_found", f"no such row of {batch_id}")
        return await self._thumbnails.make(caller.id, lambda: self._medium(batch, position, number))

    def _medium(self, batch: Batch, position: int, number: int) -> tuple[Kind, bytes]:
        config, folder = self._deployment.config(batch.model), self._work.batch(batch.batch_id)
        with _erased_meanwhile(batch.batch_id):
            found = row_sample.read_media(folder, config, position, number)
        if found is None:
            raise ServiceError("not_found", f"no such picture of {batch.batch_id}")
        return found

    async def _here(self, caller: Caller, batch_id: str) -> tuple[Batch, Sequence[SegmentRef]]:
        served, segments, _ = await self._call("result_files", caller, batch_id)
        if served.batch.erased:
            raise ServiceError("results_gone", f"{batch_id} has ended, and nothing of it is kept here")
        if served.batch.model not in self._deployment.models:
            raise ServiceError("not_found", f"the model of {batch_id} is not served here any more")
        return served.batch, segments

    # -- the actor

    async def _page(self, name: str, *args: Any) -> Any:
        return await self._call("ask_page", name, *args)

    async def _view(self, name: str, *args: Any) -> BatchView:
        view: BatchView = await self._ask(name, *args)
        return view

    async def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await self._call("ask", name, *args, **kwargs)

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await getattr(self._actor, name).remote(*args, **kwargs)
        except RayTaskError as error:
            if isinstance(error.cause, LsiError):
                raise error.cause from None
            raise
        except RayActorError as error:
            raise ServiceError("unavailable", "the service is being restarted") from error


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, LsiError):
            raise
        raise ServiceError("unavailable", "the service cannot write to its disk now", retry_after_s=10) from error


@contextmanager
def _erased_meanwhile(batch_id: str) -> Iterator[None]:
    """A batch that ends takes its folder away under who reads it."""
    try:
        yield
    except (FileNotFoundError, LsiError) as error:
        raise ServiceError("results_gone", f"{batch_id} has ended meanwhile") from error


async def _chunks(pieces: Iterator[bytes], close: Any) -> AsyncIterator[bytes]:
    try:
        while (piece := await asyncio.to_thread(next, pieces, b"")) != b"":
            yield piece
    finally:
        close()
