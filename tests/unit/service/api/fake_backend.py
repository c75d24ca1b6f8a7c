"""A Backend in memory that keeps the protocol's promises: owners, repeats, states, files. Tests set the rest."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lsi_ray.ledger.service_records import Moment, SignIn, Token
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.rates import RateLimiter
from lsi_ray.service.backend import (
    BatchView,
    Caller,
    FileContent,
    FileView,
    ModelView,
    Page,
    Patch,
    Repeat,
    Result,
    Retry,
    ServiceError,
    Submission,
    Upload,
    WriteKind,
)
from lsi_ray.service.page_views import ClusterView, SampleRow

MODEL = "Qwen/Qwen2.5-VL-32B-Instruct"
ALICE, BOB, READER = "lsi-alice-token", "lsi-bob-token", "lsi-reader-token"
CALLERS = {
    ALICE: Caller("acct_alice", "alice"),
    BOB: Caller("acct_bob", "bob"),
    READER: Caller("acct_alice", "alice, reading", frozenset({"read"})),
}


@dataclass
class FakeBackend:
    clock: Callable[[], float]
    batches: dict[str, BatchView] = field(default_factory=dict)
    submissions: dict[str, Submission] = field(default_factory=dict)
    changes: list[Retry | Patch] = field(default_factory=list)
    stored: dict[str, tuple[str, FileView, bytes]] = field(default_factory=dict)
    rows: dict[str, list[Result]] = field(default_factory=dict)
    fail_with: Exception | None = None
    fails: int = 0
    """How many of the next calls raise `fail_with`; after the batch was made, for `submit`."""
    chunk_sizes: list[int] = field(default_factory=list)
    limiter: RateLimiter | None = None

    sign_ins: dict[str, Caller] = field(default_factory=dict)
    moments: dict[str, tuple[Moment, ...]] = field(default_factory=dict)
    samples: dict[str, tuple[SampleRow, ...]] = field(default_factory=dict)
    thumbnails: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    cluster_view: ClusterView = field(default_factory=lambda: ClusterView((), 0.0, ()))

    def __post_init__(self) -> None:
        self._repeats: dict[tuple[str, str], tuple[str, Repeat, float]] = {}
        self._ids = itertools.count(1)

    # -- callers

    async def authenticate(self, token: str) -> Caller | None:
        return CALLERS.get(token)

    async def write_wait_s(self, caller: Caller, kind: WriteKind) -> float:
        return self.limiter.wait_s(caller.id, kind) if self.limiter is not None else 0.0

    async def health(self) -> dict[str, Any]:
        return {"status": "ok"}

    async def models(self) -> tuple[ModelView, ...]:
        return (ModelView(MODEL, "Qwen2.5 VL 32B", 1.7e9, size="32B"), ModelView("old", "Old", 1.6e9, retired_at=1.7e9))

    async def sign_in(self, token: str) -> SignIn | None:
        caller = CALLERS.get(token)
        if caller is None:
            return None
        text = f"cookie-of-{caller.name.replace(', ', '-')}-{next(self._ids):012}"
        self.sign_ins[text] = caller
        record = Token("id", caller.id, caller.name, tuple(caller.scopes), self.clock(), None, None)
        return SignIn(text, record, self.clock() + 43_200)

    async def signed_in(self, text: str) -> Caller | None:
        return self.sign_ins.get(text)

    async def sign_out(self, text: str) -> None:
        self.sign_ins.pop(text, None)

    # -- the page

    async def pace(self, caller: Caller, batch_id: str) -> tuple[Moment, ...]:
        await self.get(caller, batch_id)
        return self.moments.get(batch_id, ())

    async def sample(self, caller: Caller, batch_id: str, most: int) -> tuple[SampleRow, ...]:
        view = await self.get(caller, batch_id)
        if view.status.terminal:
            raise ServiceError("results_gone", f"{batch_id} has ended")
        return self.samples.get(batch_id, ())[:most]

    async def thumbnail(self, caller: Caller, batch_id: str, position: int, number: int) -> bytes:
        await self.get(caller, batch_id)
        if (batch_id, position, number) not in self.thumbnails:
            raise ServiceError("not_found", "no such picture")
        return self.thumbnails[batch_id, position, number]

    async def cluster(self) -> ClusterView:
        return self.cluster_view

    # -- batches

    async def submit(self, caller: Caller, submission: Submission) -> tuple[BatchView, bool]:
        if submission.model not in (None, MODEL):
            raise ServiceError("model_not_found", f"no model {submission.model!r} here", param="model")
        if submission.input_file_id is not None:
            await self.file(caller, submission.input_file_id)
        view, created = self._once(caller, submission.repeat, lambda: self._new(caller, submission))
        self.submissions.setdefault(view.id, submission)
        self._maybe_fail()
        return view, created

    async def get(self, caller: Caller, batch_id: str) -> BatchView:
        self._maybe_fail()
        view = self.batches.get(batch_id)
        if view is None or view.account_id != caller.id:
            raise ServiceError("not_found", f"no batch {batch_id!r}")
        return view

    async def list(
        self, caller: Caller, *, limit: int, offset: int = 0, after_id: str | None = None, archived: bool = False
    ) -> Page[BatchView]:
        mine = [
            v for v in reversed(self.batches.values()) if v.account_id == caller.id and (archived or not v.archived)
        ]
        if after_id is not None:
            offset = mine.index(await self.get(caller, after_id)) + 1
        return _page(mine, offset, limit)

    async def cancel(self, caller: Caller, batch_id: str) -> BatchView:
        view = await self.get(caller, batch_id)
        if view.status.terminal:
            raise ServiceError("not_cancellable", f"batch {batch_id} is {view.status} already")
        return self.move(batch_id, BatchStatus.CANCELLING)

    async def retry(self, caller: Caller, batch_id: str, retry: Retry) -> tuple[BatchView, bool]:
        old = await self.get(caller, batch_id)
        if not old.status.terminal:
            raise ServiceError("not_retryable", f"batch {batch_id} is {old.status}: it has not ended")
        self.changes.append(retry)
        submission = replace(self.submissions[batch_id], window_s=retry.window_s, window=retry.window)
        return self._once(caller, retry.repeat, lambda: self._new(caller, submission, old))

    async def archive(self, caller: Caller, batch_id: str) -> None:
        self.batches[batch_id] = replace(await self.get(caller, batch_id), archived=True)

    async def patch(self, caller: Caller, batch_id: str, patch: Patch) -> BatchView:
        view = await self.get(caller, batch_id)
        if view.status.terminal:
            raise ServiceError("not_patchable", f"batch {batch_id} is {view.status} already")
        self.changes.append(patch)
        if patch.window is not None and patch.window_s is not None:
            view = replace(view, window=patch.window, deadline=view.created_at + patch.window_s)
        if patch.priority is not None:
            view = replace(view, priority=patch.priority)
        if patch.output_url is not None:
            view = replace(view, output=str(patch.output_url))
        self.batches[batch_id] = view
        return view

    async def results(self, caller: Caller, batch_id: str, after_row: int) -> AsyncIterator[Result]:
        await self.get(caller, batch_id)
        for result in self.rows.get(batch_id, []):
            if result.row > after_row:
                yield result

    # -- files

    async def create_file(self, caller: Caller, upload: Upload) -> FileView:
        content = b""
        async for chunk in upload.chunks:
            self.chunk_sizes.append(len(chunk))
            content += chunk
        expires = None if upload.expires_after_s is None else self.clock() + upload.expires_after_s
        return self.keep(caller.id, upload.filename, content, upload.purpose, expires)

    def keep(
        self, owner: str, filename: str, content: bytes, purpose: str = "batch", expires_at: float | None = None
    ) -> FileView:
        view = FileView(
            f"file-{next(self._ids):04}", len(content), self.clock(), filename, purpose, expires_at=expires_at
        )
        self.stored[view.id] = (owner, view, content)
        return view

    async def files(
        self, caller: Caller, *, purpose: str | None, limit: int, after_id: str | None, descending: bool = True
    ) -> Page[FileView]:
        mine = [v for owner, v, _ in self.stored.values() if owner == caller.id and purpose in (None, v.purpose)]
        if descending:
            mine.reverse()
        offset = 0 if after_id is None else mine.index(await self.file(caller, after_id)) + 1
        return _page(mine, offset, limit)

    async def file(self, caller: Caller, file_id: str) -> FileView:
        return self._stored(caller, file_id)[0]

    async def file_content(self, caller: Caller, file_id: str) -> FileContent:
        view, content = self._stored(caller, file_id)
        return FileContent(view.filename, view.bytes, _pieces(content))

    async def delete_file(self, caller: Caller, file_id: str) -> None:
        self._stored(caller, file_id)
        del self.stored[file_id]

    # -- for tests

    def move(self, batch_id: str, to: BatchStatus, **changes: Any) -> BatchView:
        view = self.batches[batch_id]
        view = replace(view, status=to, times={**view.times, to: self.clock()}, accepted=False, **changes)
        self.batches[batch_id] = view
        return view

    def _new(self, caller: Caller, s: Submission, old: BatchView | None = None) -> BatchView:
        now = self.clock()
        view = BatchView(
            id=f"batch_{next(self._ids):04}",
            surface=s.surface,
            account_id=caller.id,
            endpoint=s.endpoint,
            status=BatchStatus.VALIDATING,
            created_at=now,
            window=s.window,
            deadline=now + s.window_s,
            model=s.model or MODEL,
            accepted=True,
            times={BatchStatus.VALIDATING: now},
            input=str(s.input_url) if s.input_url else None,
            input_file_id=s.input_file_id,
            output=str(s.output_url) if s.output_url else None,
            metadata=s.metadata,
            priority=s.priority,
            store=s.store,
            retry_count=old.retry_count + 1 if old else 0,
            retry_of=old.id if old else None,
            warnings=s.warnings,
        )
        self.batches[view.id] = view
        self.submissions[view.id] = s
        return view

    def _once(self, caller: Caller, repeat: Repeat, make: Callable[[], BatchView]) -> tuple[BatchView, bool]:
        name = (caller.id, repeat.key or f"body:{repeat.fingerprint}")
        if name in self._repeats:
            batch_id, known, at = self._repeats[name]
            if repeat.key and known.fingerprint != repeat.fingerprint:
                raise ServiceError("idempotency_conflict", "this Idempotency-Key came with another body before")
            if repeat.key or self.clock() - at <= repeat.within_s:
                return self.batches[batch_id], False
        view = make()
        self._repeats[name] = (view.id, repeat, self.clock())
        return view, True

    def _stored(self, caller: Caller, file_id: str) -> tuple[FileView, bytes]:
        owner, view, content = self.stored.get(file_id, ("", None, b""))
        if view is None or owner != caller.id:
            raise ServiceError("not_found", f"no file {file_id!r}")
        return view, content

    def _maybe_fail(self) -> None:
        if self.fails > 0 and self.fail_with is not None:
            self.fails -= 1
            raise self.fail_with


def _page(items: list[Any], offset: int, limit: int) -> Page[Any]:
    return Page(tuple(items[offset : offset + limit]), len(items) > offset + limit)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
