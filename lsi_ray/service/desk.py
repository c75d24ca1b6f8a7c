"""What callers ask of the service, answered from the ledger: batches and files, each only to its owner.

A plain object; `Supervisor` does what is decided here. Secrets are written into the batch's folder before the batch is
acknowledged; a folder that no batch names is swept when the service starts.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import File, Served, Submitted
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.admission import Claim, admit
from lsi_ray.service.backend import (
    BatchView,
    Caller,
    FileView,
    ModelView,
    Page,
    Patch,
    Repeat,
    Retry,
    ServiceError,
    Submission,
)
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.describe import Describe
from lsi_ray.service.file_store import FileStore
from lsi_ray.service.private import Private, upload_path
from lsi_ray.service.speed import Meter


class Desk:
    """`claims(model)`: the work at hand of a model; `changed(batch_id)` is told of what should be looked at anew."""

    def __init__(
        self,
        ledger: ServiceLedger,
        work: WorkDir,
        deployment: Deployment,
        *,
        describe: Describe,
        claims: Callable[[str], list[Claim]],
        meter: Callable[[str], Meter],
        changed: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._work = work
        self._deployment = deployment
        self._files = FileStore(work.path)
        self._describe = describe
        self._claims = claims
        self._meter = meter
        self._changed = changed
        self._clock = clock
        self._started_at = clock()

    # -- batches

    def submit(self, caller: Caller, asked: Submission) -> tuple[BatchView, bool]:
        model = self._model(asked.model)
        size = self._input_size(caller, asked.input_file_id)
        options = {
            "surface": asked.surface,
            "endpoint": asked.endpoint,
            "store": asked.store,
            "input_file_id": asked.input_file_id,
            "output_expires_after_s": asked.output_expires_after_s,
        }
        now = self._clock()
        new = NewBatch(
            batch_id=new_batch_id(now),
            model=model,
            input=str(asked.input_url or ""),
            output=str(asked.output_url or ""),
            deadline=now + asked.window_s,
            window=asked.window,
            priority=asked.priority,
            caller=caller.id,
            metadata=asked.metadata,
            options=options,
        )
        private = Private(asked.input_url, asked.output_url, asked.webhook)
        return self._create(new, private, asked.repeat, asked.warnings, size)

    def get(self, caller: Caller, batch_id: str) -> BatchView:
        return self._describe(self._owned(caller, batch_id))

    def list(
        self, caller: Caller, *, limit: int, offset: int = 0, after_id: str | None = None, archived: bool = False
    ) -> Page[BatchView]:
        with _as_not_found():
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
        if not self._owned(caller, batch_id).batch.status.terminal:
            raise ServiceError("not_archivable", f"{batch_id} has not ended: only a batch that has is archived")
        self._ledger.archive(batch_id)

    def patch(self, caller: Caller, batch_id: str, patch: Patch) -> BatchView:
        batch = self._owned(caller, batch_id).batch
        if batch.status.terminal:
            raise ServiceError("not_patchable", f"{batch_id} is {batch.status}: it has ended")
        folder = self._work.batch(batch_id)
        try:
            private = Private.load(folder).with_urls(patch.input_url, patch.output_url)
            private.save(folder)
            deadline = batch.created_at + patch.window_s if patch.window_s is not None else None
            self._ledger.reschedule(batch_id, deadline=deadline, window=patch.window, priority=patch.priority)
            for warning in patch.warnings:
                self._ledger.warn(batch_id, warning)
        except LedgerError as error:
            raise ServiceError("not_patchable", f"{batch_id} has ended meanwhile") from error
        self._changed(batch_id)
        return self.get(caller, batch_id)

    def retry(self, caller: Caller, batch_id: str, asked: Retry) -> tuple[BatchView, bool]:
        served = self._owned(caller, batch_id)
        old = served.batch
        if not old.status.terminal:
            raise ServiceError("not_retryable", f"{batch_id} is {old.status}: a retry begins when it has ended")
        count = old.options.get("retry_count", 0) + 1
        if count > self._deployment.settings.max_retries:
            raise ServiceError("retry_limit", f"{batch_id} is the retry number {count - 1}, the last one")
        input_file_id = None if asked.input_url else old.options.get("input_file_id")
        private = Private(asked.input_url, asked.output_url, None, self._rows_to_retry(batch_id, asked))
        self._check_retry_urls(served, asked, input_file_id)
        now = self._clock()
        window_s = asked.window_s or (old.deadline or now) - old.created_at
        new = NewBatch(
            batch_id=new_batch_id(now),
            model=old.model,
            input=str(asked.input_url or ""),
            output=str(asked.output_url or ""),
            deadline=now + window_s,
            window=asked.window or old.window,
            priority=old.priority,
            caller=caller.id,
            metadata=old.metadata,
            options={**old.options, "input_file_id": input_file_id, "retry_of": batch_id, "retry_count": count},
        )
        return self._create(new, private, asked.repeat, asked.warnings, self._input_size(caller, input_file_id))

    def _rows_to_retry(self, batch_id: str, asked: Retry) -> tuple[int, ...] | None:
        """Rows of the input, also when the batch was a retry of some of them itself."""
        if not asked.failed_only:
            return None
        failed = self._ledger.failed_rows(batch_id)
        if failed is None:
            return None
        if not failed:
            raise ServiceError("nothing_to_retry", f"no row of {batch_id} has failed")
        return failed

    def _check_retry_urls(self, served: Served, asked: Retry, input_file_id: str | None) -> None:
        batch = served.batch
        if asked.input_url is None and input_file_id is None:
            message = f"the URLs of {batch.batch_id} were erased when it ended: give input_url and output_url again"
            raise ServiceError("not_retryable", message, param="input_url")
        if asked.output_url is None and batch.output:
            message = "give an output_url: the old one was erased when the batch ended, and would be overwritten"
            raise ServiceError("output_url_required", message, param="output_url")

    def _create(
        self, new: NewBatch, private: Private, repeat: Repeat, warnings: tuple[str, ...], prompt_bytes: int
    ) -> tuple[BatchView, bool]:
        submitted = Submitted(new, repeat.fingerprint, repeat.key, repeat.within_s, warnings, prompt_bytes)
        # A repeated request is answered before anything is refused: it was accepted once.
        if (known := self._ledger.known_submission(submitted)) is not None:
            return self._describe(known), False
        self._admit(new, prompt_bytes)
        folder = self._work.batch(new.batch_id).create()
        private.save(folder)
        if (file_id := new.options.get("input_file_id")) is not None:
            os.link(self._files.path(file_id), upload_path(folder))
        try:
            served, created = self._ledger.submit(submitted)
        except LedgerError:
            self._work.erase_batch(new.batch_id)
            raise
        if not created:
            self._work.erase_batch(new.batch_id)
        self._changed(served.batch.batch_id)
        return self._describe(served), created

    def _admit(self, new: NewBatch, prompt_bytes: int) -> None:
        settings = self._deployment.settings.admission
        if self._ledger.count_alive(new.caller) >= settings.max_batches_per_caller:
            raise ServiceError(
                "too_many_batches", f"{settings.max_batches_per_caller} batches of yours have not ended yet"
            )
        if not settings.refuse or not new.model:
            return
        meter = self._meter(new.model)
        one = Claim(new.batch_id, prompt_bytes / 4, new.deadline, new.priority)
        admit(one, self._claims(new.model), meter, safety=settings.safety, now=self._clock())

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
        with _as_not_found():
            served = self._ledger.served(batch_id, caller.id)
            if "surface" not in served.batch.options:
                raise LedgerError("no_such_batch", f"no batch {batch_id!r}")
            return served

    # -- files

    def _input_size(self, caller: Caller, file_id: str | None) -> int:
        if file_id is None:
            return 0
        with _as_not_found():
            return self._ledger.file(caller.id, file_id).bytes

    def add_file(self, caller: Caller, file: File) -> FileView:
        return file_view(self._ledger.add_file(replace(file, owner=caller.id)))

    def file(self, caller: Caller, file_id: str) -> FileView:
        with _as_not_found():
            return file_view(self._ledger.file(caller.id, file_id))

    def files(
        self, caller: Caller, *, purpose: str | None, limit: int, after_id: str | None, descending: bool
    ) -> Page[FileView]:
        with _as_not_found():
            found = self._ledger.files(
                caller.id, purpose=purpose, after=after_id, limit=limit + 1, descending=descending
            )
        return Page(tuple(file_view(file) for file in found[:limit]), len(found) > limit)

    def delete_file(self, caller: Caller, file_id: str) -> None:
        with _as_not_found():
            self._ledger.delete_file(caller.id, file_id)
        self._files.delete(file_id)

    # -- models

    def models(self) -> tuple[ModelView, ...]:
        return tuple(
            ModelView(name, served.settings.display_name or name, self._started_at, size=served.settings.size)
            for name, served in self._deployment.models.items()
        )


@contextmanager
def _as_not_found() -> Iterator[None]:
    """What the ledger does not know, or gives to nobody else, in the API's words."""
    try:
        yield
    except LedgerError as error:
        unknown = error.code in ("no_such_batch", "no_such_file", "unsafe_name")
        raise ServiceError("not_found" if unknown else error.code, error.message) from error


def file_view(file: File) -> FileView:
    return FileView(file.file_id, file.bytes, file.created_at, file.filename, file.purpose, expires_at=file.expires_at)


def new_batch_id(now: float) -> str:
    return f"batch_{time.strftime('%Y%m%d', time.gmtime(now))}_{secrets.token_hex(8)}"


def sweep(work: WorkDir, ledger: ServiceLedger, now: float) -> None:
    """What a killed service left behind: folders and files that were never acknowledged."""
    alive = {batch.batch_id for batch in ledger.unfinished()}
    for folder in work.batches.iterdir():
        if folder.name not in alive:
            work.erase_batch(folder.name)
    FileStore(work.path).sweep(ledger.known_files(), now)
