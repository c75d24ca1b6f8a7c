"""Files of the Files API, each only to its owner. Their bytes do not come here: replicas write and read them."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import File
from lsi_ray.service.backend import Caller, FileView, Page, ServiceError
from lsi_ray.service.file_store import FileStore
from lsi_ray.service.not_found import as_not_found


class FileDesk:
    """`max_bytes`: of one caller's files together."""

    def __init__(self, ledger: ServiceLedger, work: Path, max_bytes: int) -> None:
        self._ledger = ledger
        self._store = FileStore(work)
        self._max_bytes = max_bytes
        self._adding = threading.Lock()

    def add(self, caller: Caller, file: File) -> FileView:
        """A file whose bytes are durable. Raises ServiceError `too_many_bytes`, and then they are gone.

        Repeated, it answers as before: Ray calls again when the first answer was lost with the service's actor."""
        with self._adding:
            if (known := self._known(caller, file.file_id)) is not None:
                return known
            kept = self._ledger.file_bytes(caller.id)
            if kept + file.bytes > self._max_bytes:
                self._store.delete(file.file_id)
                message = f"your files have {kept:,} bytes already, and may have {self._max_bytes:,}: delete some first"
                raise ServiceError("too_many_bytes", message)
            return file_view(self._ledger.add_file(replace(file, owner=caller.id)))

    def _known(self, caller: Caller, file_id: str) -> FileView | None:
        try:
            return file_view(self._ledger.file(caller.id, file_id))
        except LedgerError as error:
            if error.code != "no_such_file":
                raise
            return None

    def get(self, caller: Caller, file_id: str) -> FileView:
        with as_not_found():
            return file_view(self._ledger.file(caller.id, file_id))

    def list(
        self, caller: Caller, *, purpose: str | None, limit: int, after_id: str | None, descending: bool
    ) -> Page[FileView]:
        with as_not_found():
            found = self._ledger.files(
                caller.id, purpose=purpose, after=after_id, limit=limit + 1, descending=descending
            )
        return Page(tuple(file_view(file) for file in found[:limit]), len(found) > limit)

    def delete(self, caller: Caller, file_id: str) -> None:
        with as_not_found():
            self._ledger.delete_file(caller.id, file_id)
        self._store.delete(file_id)


def file_view(file: File) -> FileView:
    return FileView(file.file_id, file.bytes, file.created_at, file.filename, file.purpose, expires_at=file.expires_at)
