"""The bytes of files of the Files API, in `<work>/files/<file_id>`; their records are in the ledger.

A file is durable under its name before its record is made; a file without a record is swept when the service starts.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lsi_ray.ledger.workdir import check_name, make_folder, sync_folder

_FORGOTTEN_S = 86_400.0


class FileStore:
    def __init__(self, work: Path) -> None:
        self._folder = work / "files"
        make_folder(self._folder)

    def path(self, file_id: str) -> Path:
        return self._folder / check_name(file_id)

    def begin(self) -> tuple[Path, BinaryIO]:
        """A temporary file to write to, for `finish` or `abandon`."""
        path = self._folder / f".{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return path, open(os.open(path, flags, 0o600), "wb")

    def finish(self, temporary: Path, file: BinaryIO, file_id: str) -> int:
        """Durable under its name; its size."""
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
        file.close()
        os.replace(temporary, self.path(file_id))
        sync_folder(self._folder)
        return size

    def abandon(self, temporary: Path, file: BinaryIO) -> None:
        file.close()
        temporary.unlink(missing_ok=True)

    def delete(self, file_id: str) -> None:
        with suppress(FileNotFoundError):
            self.path(file_id).unlink()

    def sweep(self, known: Collection[str], now: float) -> None:
        """Remove what no record names and nobody has written to for a day: somebody may be uploading."""
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.name not in known and now - path.stat().st_mtime > _FORGOTTEN_S:
                    path.unlink()


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"
