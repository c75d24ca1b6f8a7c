"""Delivery of one served batch, run in a process of its own: pack once, then send until it is there.

Invariant: what was packed is what is sent. The archive is built once and its name written down (`packed.json`); every
later try, also after a restart, a cancellation or with another URL, sends those bytes.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import msgspec

from lsi_ray.delivery import DeliveryLedger, output_lines, pack, reopen_damaged
from lsi_ray.errors import StorageError
from lsi_ray.ledger.records import Batch
from lsi_ray.ledger.service_records import File
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import BatchDir, WorkDir, atomic_write, sync_folder
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.file_store import FileStore
from lsi_ray.service.private import Private
from lsi_ray.storage.retry import DEFAULT_RETRY
from lsi_ray.storage.transfer import DEFAULT_OPTIONS
from lsi_ray.storage.upload import upload

Outcome = Literal["delivered", "reopened"]

# The supervisor tries again for days; a try that does not get through should end and say so.
_RETRY = replace(DEFAULT_RETRY, attempts=5)


class DeliveryJobLedger(DeliveryLedger, Protocol):
    def set_failed_rows(self, batch_id: str, rows: tuple[int, ...]) -> None: ...
    def set_output_files(self, batch_id: str, output: str | None, error: str | None) -> None: ...
    def add_file(self, file: File) -> File: ...
    def engine_of(self, model: str) -> dict[str, str]: ...


class _Mark(msgspec.Struct):
    """What was packed: as an archive of this digest, or as files of these ids."""

    sha256: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None


def deliver_batch(batch_id: str, work: WorkDir, deployment: Deployment, ledger: DeliveryJobLedger) -> Outcome:
    """`reopened`: finished results were damaged on disk, and the batch runs on. Raises StorageError."""
    batch, folder = ledger.batch(batch_id), work.batch(batch_id)
    private = Private.load(folder)
    target = private.target()
    if target is not None:
        deployment.check_kind(target)
    mark = _load(folder)
    if mark is None:
        if batch.model not in deployment.models:  # its config says how rows are read
            message = f"the model {batch.model!r} is not served here any more; its output is packed when it is again"
            raise StorageError("model_not_served", message, transient=True)
        reopen_damaged(batch_id, folder, ledger)
        # Asked for, and not what the call said: a repeated disown, whose first answer was lost, reopens nothing.
        batch = ledger.batch(batch_id)
        if batch.status == BatchStatus.IN_PROGRESS:
            return "reopened"
        pack_it = _pack_files if target is None else _pack_archive
        mark = pack_it(batch, folder, work, deployment, ledger, private)
        _save(folder, mark)
    if target is None:
        ledger.set_output_files(batch_id, mark.output_file_id, mark.error_file_id)
    else:
        options = replace(DEFAULT_OPTIONS, urls=deployment.urls, retry=_RETRY)
        upload(folder.output, target, options=options)
    return "delivered"


def _pack_archive(
    batch: Batch,
    folder: BatchDir,
    work: WorkDir,  # noqa: ARG001 - as _pack_files
    deployment: Deployment,
    ledger: DeliveryJobLedger,
    private: Private,
) -> _Mark:
    packed = pack(batch, folder, ledger, deployment.config(batch.model), ledger.engine_of(batch.model))
    ledger.set_failed_rows(batch.batch_id, _input_rows(packed.failed_rows, private))
    return _Mark(sha256=packed.output.sha256)


def _pack_files(
    batch: Batch,
    folder: BatchDir,
    work: WorkDir,
    deployment: Deployment,
    ledger: DeliveryJobLedger,
    private: Private,
) -> _Mark:
    """Output and error lines as a file each, of ids that follow from the batch; one without a line is no file."""
    store, failed_rows = FileStore(work.path), list[int]()
    open_files = [store.begin(), store.begin()]
    try:
        outcome = batch.outcome or BatchStatus.COMPLETED
        for row in output_lines(batch, outcome, folder, ledger, deployment.config(batch.model)):
            open_files[row.failed][1].write(row.line + b"\n")
            if row.failed:
                failed_rows.append(row.row_index)
        ids = [
            _finish(store, *opened, batch, kind, ledger)
            for opened, kind in zip(open_files, ("output", "error"), strict=True)
        ]
    except BaseException:
        for opened in open_files:
            store.abandon(*opened)
        raise
    ledger.set_failed_rows(batch.batch_id, _input_rows(failed_rows, private))
    return _Mark(output_file_id=ids[0], error_file_id=ids[1])


def _finish(
    store: FileStore, temporary: Path, file: BinaryIO, batch: Batch, kind: str, ledger: DeliveryJobLedger
) -> str | None:
    if not file.tell():
        store.abandon(temporary, file)
        return None
    file_id = output_file_id(batch.batch_id, kind)
    size = store.finish(temporary, file, file_id)
    now = time.time()
    lifetime = batch.options.get("output_expires_after_s")
    expires = now + lifetime if lifetime else None
    name = f"{batch.batch_id}_{kind}.jsonl"
    ledger.add_file(File(file_id, batch.caller, name, size, "batch_output", now, expires))
    return file_id


def _input_rows(rows: list[int], private: Private) -> tuple[int, ...]:
    """Rows of a batch as rows of its input, of which a retry runs some only."""
    return tuple(rows) if private.only is None else tuple(private.only[row] for row in rows)


def _load(folder: BatchDir) -> _Mark | None:
    path = folder.path / "packed.json"
    if not path.exists():
        return None
    sync_folder(folder.path)  # a job that was killed before this has left a mark that a power cut takes back
    return msgspec.json.decode(path.read_bytes(), type=_Mark)


def _save(folder: BatchDir, mark: _Mark) -> None:
    atomic_write(folder.path / "packed.json", msgspec.json.encode(mark))


def output_file_id(batch_id: str, kind: str) -> str:
    return "file-" + hashlib.blake2b(f"{batch_id}/{kind}".encode(), digest_size=12).hexdigest()
