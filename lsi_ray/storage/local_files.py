"""The same operations on files of this machine; nothing is retried here, a failing disk is not transient."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.errors import StorageError
from lsi_ray.storage.transfer import CHUNK, Fetched, Side, Stat, Uploaded


def fetch_local(path: Path, sink: Callable[[bytes], object], *, max_bytes: int | None, version: str | None) -> Fetched:
    before = stat_local(path)
    assert before.size is not None
    if version is not None and before.version != version:
        raise StorageError("input_changed", f"{path} has changed")
    if max_bytes is not None and before.size > max_bytes:
        raise StorageError("input_too_large", f"{path}: {before.size:,} bytes; at most {max_bytes:,} are accepted")
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(path, before.size):
        digest.update(chunk)
        size += len(chunk)
        sink(chunk)
    if stat_local(path) != before or size != before.size:
        raise StorageError("input_changed", f"{path} has changed while it was being read")
    return Fetched(size, digest.hexdigest(), before.version)


def stat_local(path: Path) -> Stat:
    with _named("input", path):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise StorageError("input_rejected", f"{path} is not a regular file")
    return Stat(found.st_size, f"{found.st_mtime_ns}-{found.st_size}")


def upload_local(source: Path, target: Path) -> Uploaded:
    """A reader of `target` sees the old file or the whole new one. Missing folders are made."""
    with _named("output", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file, atomic_file(target) as out:
            shutil.copyfileobj(file, out, CHUNK)
            size = out.tell()
    return Uploaded(size, None)


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes: a file that is being written to would have no end."""
    with _named("input", path):
        file = path.open("rb")
    with file:
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            size -= len(chunk)
            yield chunk


@contextmanager
def _named(side: Side, path: Path) -> Iterator[None]:
    """The operating system's refusals under our codes."""
    codes = {FileNotFoundError: "not_found", PermissionError: "forbidden"}
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(f"{side}_{codes.get(type(error), 'rejected')}", f"{path}: {said}") from error
