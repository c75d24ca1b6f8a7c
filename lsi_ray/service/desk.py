"""What callers ask of the service about batches, answered from the ledger; each is only its owner's.

A plain object; `Supervisor` does what is decided here. Secrets are written into the batch's folder before the batch is
acknowledged; a folder that no batch names is swept when the service starts.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from lsi_ray.errors import Finding, LedgerError
from lsi_ray.ledger.records import Batch, NewBatch
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import Request, Served, Submitted
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import BatchDir, WorkDir
from lsi_ray.service.backend import (
    BatchView,
    Caller,
    ModelView,
    Page,
    Patch,
    Repeat,
    Retry,
    ServiceError,
    Submission,
)
from lsi_ray.service.capacity import Capacity
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.describe import Describe
from lsi_ray.service.file_store import FileStore
from lsi_ray.service.kept_urls import KeptUrls
from lsi_ray.service.not_found import as_not_found
from lsi_ray.service.private import Private, upload_path
from lsi_ray.service.retries import private_of, term_of


class Desk:
    """`changed(batch_id)` is told of what should be looked at anew."""

    def __init__(
        self,
        ledger: ServiceLedger,
        work: WorkDir,
        deployment: Deployment,
        *,
        describe: Describe,
        capacity: Capacity,
        kept: KeptUrls,
        changed: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._work = work
        self._deployment = deployment
        self._files = FileStore(work.path)
        self._describe = describe
        self._capacity = capacity
        self._kept = kept
        self._mutex = threading.RLock()
        self._changed = changed
        self._clock = clock
        self._started_at = clock()

    # -- batches

    def submit(self, caller: Caller, asked: Submission) -> tuple[BatchView, bool]:
        with self._mutex:
            if (known := self._known(caller, asked.repeat)) is not None:
                return self._describe(known), False
            if asked.input_file_id is not None:
                with as_not_found():
                    self._ledger.file(caller.id, asked.input_file_id)
            private = Private(asked.input_url, asked.output_url, asked.webhook)
            return self._create(self._new(caller, asked), private, asked.repeat, asked.warnings)

    def _new(self, caller: Caller, asked: Submission) -> NewBatch:
        now = self._clock()
        return NewBatch(
            batch_id=new_batch_id(now),
            model=self._model(asked.model),
            input=str(asked.input_url or ""),
            output=str(asked.output_url or ""),
            deadline=now + asked.window_s,
            window=asked.window,
            priority=asked.priority,
            caller=caller.id,
            metadata=asked.metadata,
            options={
                "surface": asked.surface,
                "endpoint": asked.endpoint,
                "store": asked.store,
                "input_file_id": asked.input_file_id,
                "output_expires_after_s": asked.output_expires_after_s,
            },
        )

    def get(self, caller: Caller, batch_id: str) -> BatchView:
        return self._describe(self._owned(caller, batch_id))

    def list(
        self, caller: Caller, *, limit: int, offset: int = 0, after_id: str | None = None, archived: bool = False
    ) -> Page[BatchView]:
        with as_not_found():
            found = self._ledger.page(caller.id, limit=limit + 1, offset=offset, after=after_id, archived=archived)
        return Page(tuple(self._describe(served) for served in found[:limit]), len(found) > limit)

    def cancel(self, caller: Caller, batch_id: str) -> BatchView:
        served = self._owned(caller, batch_id)
        if served.batch.status.terminal and served.batch.status != BatchStatus.CANCELLED:
            raise ServiceError("not_cancellable", f"{batch_id} is {served.batch.status}: it has ended")
        self._ledger.request_cancel(batch_id)
        self._changed(batch_id)
        return self.get(caller, batch_id)

    def archive(self, caller: Caller, batch_id: str) -> None:
        batch = self._owned(caller, batch_id).batch
        if not batch.status.terminal:
            raise ServiceError("not_archivable", f"{batch_id} has not ended: only a batch that has is archived")
        self._ledger.archive(batch_id)
        self._kept.forget(batch_id, to_come=not batch.erased)

    def patch(self, caller: Caller, batch_id: str, patch: Patch) -> BatchView:
        with self._mutex:
            served = self._owned(caller, batch_id)
            batch = served.batch
            if batch.status.terminal:
                raise ServiceError("not_patchable", f"{batch_id} is {batch.status}: it has ended")
            deadline = batch.created_at + patch.window_s if patch.window_s is not None else None
            warnings = self._capacity.window(served, deadline) if deadline is not None else ()
            try:
                self._ledger.reschedule(batch_id, deadline=deadline, window=patch.window, priority=patch.priority)
                self._change_urls(batch_id, patch)
            except (FileNotFoundError, LedgerError) as error:
                if isinstance(error, LedgerError) and error.code not in ("illegal_transition", "no_such_batch"):
                    raise
                raise ServiceError("not_patchable", f"{batch_id} has ended meanwhile") from error
            for warning in (*patch.warnings, *warnings):
                self._ledger.warn(batch_id, warning)
        self._changed(batch_id)
        return self.get(caller, batch_id)

    def _change_urls(self, batch_id: str, patch: Patch) -> None:
        """FileNotFoundError or LedgerError `no_such_batch` when the batch is erased."""
        if patch.input_url is None and patch.output_url is None:
            return
        folder = self._work.batch(batch_id)
        Private.load(folder).with_urls(patch.input_url, patch.output_url).save(folder)

    def retry(self, caller: Caller, batch_id: str, asked: Retry) -> tuple[BatchView, bool]:
        old = self._owned(caller, batch_id).batch
        if not old.status.terminal:
            raise ServiceError("not_retryable", f"{batch_id} is {old.status}: a retry begins when it has ended")
        with self._mutex:
            if (known := self._known(caller, asked.repeat)) is not None:
                return self._describe(known), False
            root_id = old.options.get("retry_root", batch_id)
            new, private, warnings = self._retry_of(old, root_id, asked)
            file_id = new.options["input_file_id"]
            if file_id is not None:
                with as_not_found("not_retryable"):
                    self._ledger.file(caller.id, file_id)
            made = self._create(new, private, asked.repeat, asked.warnings + warnings, retry_root=root_id)
            self._kept.forget(batch_id, to_come=not old.erased)
            return made

    def _retry_of(self, old: Batch, root_id: str, asked: Retry) -> tuple[NewBatch, Private, tuple[str, ...]]:
        count = max(self._ledger.served(root_id).state.retries, old.options.get("retry_count", 0)) + 1
        if count > self._deployment.settings.max_retries:
            raise ServiceError("retry_limit", f"{root_id} was retried {count - 1} times, the most there are")
        now = self._clock()
        private = private_of(old, asked, self._urls_of(old), self._rows_to_retry(old.batch_id, asked))
        term = term_of(asked, private, asked.window_s or (old.deadline or now) - old.created_at, now)
        changes = {
            "input_file_id": None if private.input_url else old.options.get("input_file_id"),
            "retry_of": old.batch_id,
            "retry_root": root_id,
            "retry_count": count,
        }
        new = NewBatch(
            batch_id=new_batch_id(now),
            model=old.model,
            input=str(private.input_url or ""),
            output=str(private.output_url or ""),
            deadline=term.deadline,
            window=asked.window or old.window,
            priority=old.priority,
            caller=old.caller,
            metadata=old.metadata,
            options=old.options | changes,
        )
        return new, private, term.warnings

    def _urls_of(self, batch: Batch) -> Private:
        """Of a batch that has ended, also in the moment before its folder goes."""
        if not batch.erased:
            with suppress(LedgerError):
                return Private.load(self._work.batch(batch.batch_id))
        return self._kept.get(batch.batch_id)

    def _rows_to_retry(self, batch_id: str, asked: Retry) -> tuple[int, ...] | None:
        """Rows of the input, also when the batch was a retry of some of them itself; None: all."""
        if not asked.failed_only:
            return None
        failed = self._ledger.failed_rows(batch_id)
        if failed is not None and not failed:
            raise ServiceError("nothing_to_retry", f"no row of {batch_id} has failed")
        return failed

    def _known(self, caller: Caller, repeat: Repeat) -> Served | None:
        """What a repeated request has made. It is answered before anything is refused: it was accepted once."""
        return self._ledger.known_submission(Request(caller.id, repeat.fingerprint, repeat.key, repeat.within_s))

    def _create(
        self,
        new: NewBatch,
        private: Private,
        repeat: Repeat,
        warnings: tuple[str, ...],
        *,
        retry_root: str | None = None,
    ) -> tuple[BatchView, bool]:
        """The mutex is held: limits are exact however many ask at once."""
        warnings += self._capacity.submission(new)
        submitted = Submitted(new, repeat.fingerprint, repeat.key, repeat.within_s, warnings, retry_root)
        folder = self._work.batch(new.batch_id)
        try:
            folder.create()
            if (file_id := new.options.get("input_file_id")) is not None:
                self._link_input(file_id, folder)
            private.save(folder)  # last: it makes the folder's names durable, the link's too
            served, created = self._ledger.submit(submitted)
        except BaseException:
            self._work.erase_batch(new.batch_id)
            raise
        if not created:
            self._work.erase_batch(new.batch_id)
        self._changed(served.batch.batch_id)
        return self._describe(served), created

    def _link_input(self, file_id: str, folder: BatchDir) -> None:
        try:
            os.link(self._files.path(file_id), upload_path(folder))
        except FileNotFoundError:
            raise ServiceError("not_found", f"no file {file_id!r}") from None

    def _model(self, asked: str | None) -> str:
        """The model asked for, or the only one there is, or \"\": the rows say."""
        models = self._deployment.models
        if asked is None:
            return next(iter(models)) if len(models) == 1 else ""
        if asked not in models:
            message = f"the model {asked!r} is not served here (served: {', '.join(sorted(models))})"
            raise ServiceError("model_not_found", message, param="model")
        return asked

    def _owned(self, caller: Caller, batch_id: str) -> Served:
        with as_not_found():
            served = self._ledger.served(batch_id, caller.id)
            if "surface" not in served.batch.options:
                raise LedgerError("no_such_batch", f"no batch {batch_id!r}")
            return served

    # -- models

    def models(self) -> tuple[ModelView, ...]:
        return tuple(
            ModelView(name, served.settings.display_name or name, self._started_at, size=served.settings.size)
            for name, served in self._deployment.models.items()
        )


def new_batch_id(now: float) -> str:
    return f"batch_{time.strftime('%Y%m%d', time.gmtime(now))}_{secrets.token_hex(8)}"


def sweep(work: WorkDir, ledger: ServiceLedger, now: float) -> None:
    """What a killed service left behind: folders and files that were never acknowledged. And batches that a ledger from
    a backup remembers and the disk does not: their rows cannot be answered, and would break the streams of others."""
    alive = {batch.batch_id for batch in ledger.unfinished()}
    for batch in ledger.unfinished():
        at_work = batch.shard_rows and batch.status in (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING)
        if at_work and not work.batch(batch.batch_id).plan.exists():
            message = "the ledger comes from a backup, and the batch had ended after it: submit it again if it had not"
            ledger.fail_batch(batch.batch_id, [Finding("work_lost", message)])
    for folder in work.batches.iterdir():
        if folder.name not in alive:
            work.erase_batch(folder.name)
    FileStore(work.path).sweep(ledger.known_files(), now)
