"""The work dir: where staged input, the ledger and segments live while a batch is alive.

    <work>/ledger.sqlite  lock
    <work>/batches/<batch_id>/input.tar  index.msgpack  plan.npy  segments/  output.tar.gz

Invariants: what we create is open to its owner only (0700, 0600); a file appears under its name whole and durable or
not at all. A `WorkDir` is only names, so that it travels to every process; `create` makes the folders.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lsi_ray.errors import LedgerError
from lsi_ray.space import telling_full_disk

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class BatchDir:
    path: Path

    @property
    def input(self) -> Path:
        return self.path / "input.tar"

    @property
    def index(self) -> Path:
        return self.path / "index.msgpack"

    @property
    def plan(self) -> Path:
        return self.path / "plan.npy"

    @property
    def segments(self) -> Path:
        return self.path / "segments"

    @property
    def output(self) -> Path:
        return self.path / "output.tar.gz"

    def create(self) -> BatchDir:
        self.segments.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        sync_folder(self.path)
        sync_folder(self.path.parent)
        return self


@dataclass(frozen=True, slots=True)
class WorkDir:
    path: Path

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def batches(self) -> Path:
        return self.path / "batches"

    def create(self) -> WorkDir:
        # A folder that was here before keeps its mode: it may be the user's; `batches` inside is ours.
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.batches.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.path)
        return self

    def batch(self, batch_id: str) -> BatchDir:
        return BatchDir(self.batches / check_name(batch_id))

    def erase_batch(self, batch_id: str) -> None:
        """Remove everything of the batch; doing it again is no error."""
        folder = self.batch(batch_id).path
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        sync_folder(self.batches)


def check_name(name: str) -> str:
    """`name`, if it is safe as the name of one file or folder; LedgerError `unsafe_name` otherwise."""
    if not SAFE_NAME.fullmatch(name):
        raise LedgerError("unsafe_name", f"{name!r} cannot name a file: letters, digits, '_', '-' and '.' only")
    return name


def make_folder(folder: Path) -> None:
    """Durable and open to its owner only, also when it is there: its maker may have died before the sync."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make creations, renames and removals in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def replacing(path: Path, named: Callable[[], str] | None = None) -> Iterator[BinaryIO]:
    """Write to a temporary file beside `path`; when the block ends well, it is durable under `path`, or beside it
    under the name that `named` then gives, for names that depend on the content. StorageError `work_dir_full`."""
    temporary = path.with_name(f".{path.name[:96]}.{secrets.token_hex(6)}.tmp")
    try:
        with telling_full_disk(path.parent):
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path.with_name(named()) if named else path)
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
