"""What of a folder tree has come to the platter, and what a power cut leaves of the rest.

A file is durable as it was when it was synced last, a folder's names as they were when the folder was; of SQLite's
files every write since their last sync is kept. What is not durable is lost, kept, torn or garbled, by the dice.
"""

from __future__ import annotations

import builtins
import os
import random
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECTOR = 512
_open = builtins.open  # not the one that is watched
_scandir = os.scandir


@dataclass(slots=True)
class _Unsynced:
    """A write to SQLite's file: `before` is what lay there, `size` how large the file was."""

    offset: int
    amount: int
    before: bytes
    size: int


class Platter:
    """`clock` gives a file the time at which it is synced."""

    def __init__(self, root: str, dice: random.Random, clock: Callable[[], float]) -> None:
        self.root = root
        self._dice = dice
        self._clock = clock
        self._sqlite: dict[str, list[_Unsynced]] = {}
        self._files: dict[int, tuple[bytes, float]] = {}
        self._folders: dict[int, dict[str, int]] = {}

    def sqlite_wrote(self, path: str, offset: int, amount: int, before: bytes, size: int) -> None:
        """As of sim_sqlite.Watcher."""
        self._sqlite.setdefault(path, []).append(_Unsynced(offset, amount, before, size))

    def sqlite_synced(self, path: str) -> None:
        self._sqlite.pop(path, None)

    def synced(self, fd: int) -> None:
        """A file or folder is durable as it is now."""
        status, path = os.fstat(fd), f"/proc/self/fd/{fd}"
        if stat.S_ISDIR(status.st_mode):
            self._folders[status.st_ino] = _listing(path)
        else:
            now = self._clock()
            os.utime(path, (now, now))
            self._files[status.st_ino] = (_bytes(path), now)

    def all_synced(self) -> None:
        """What is there now was there long ago."""
        self._sqlite.clear()
        self._files, self._folders = {}, {}
        self._sync_below(self.root)

    def _sync_below(self, folder: str) -> None:
        listing = self._folders[os.stat(folder).st_ino] = _listing(folder)
        for name, inode in listing.items():
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                self._sync_below(path)
            elif not _is_sqlite(name):
                self._files[inode] = (_bytes(path), os.stat(path).st_mtime)

    def lose_unsynced(self) -> None:
        """Called when nobody has a file open any more."""
        for path, writes in sorted(self._sqlite.items()):
            if os.path.exists(path):
                self._lose_writes(path, writes)
        self._lose_in(self.root)
        self.all_synced()

    def _lose_writes(self, path: str, writes: list[_Unsynced]) -> None:
        """Any part of the writes since the last sync may have come to the platter, torn at a sector."""
        all_lost = self._dice.random() < 0.3
        with _open(path, "r+b") as file:
            for write in reversed(writes):
                fate = 0.0 if all_lost else self._dice.random()
                if fate < 0.6:
                    torn = SECTOR * self._dice.randint(0, write.amount // SECTOR) if fate > 0.4 else 0
                    _take_back(file, write, torn)

    def _lose_in(self, folder: str) -> None:
        """Names one by one: the one of now or the one of the last sync. Then what is in the files."""
        synced, now = self._folders.get(os.stat(folder).st_ino, {}), _listing(folder)
        for name in sorted(synced.keys() | now.keys()):
            path = os.path.join(folder, name)
            if _is_sqlite(name):
                continue
            if synced.get(name) != now.get(name) and self._dice.random() < 0.5:
                self._restore(path, synced.get(name))
            elif name not in now:
                continue
            elif os.path.isdir(path):
                self._lose_in(path)
            else:
                self._lose_bytes(path, now[name])

    def _restore(self, path: str, inode: int | None) -> None:
        """The change of this name never came to the platter: as it was, or not there."""
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
        if inode in self._folders:
            os.mkdir(path, 0o700)
            for name, inner in sorted(self._folders[inode].items()):
                self._restore(os.path.join(path, name), inner)
        elif inode in self._files:
            _write(path, *self._files[inode])

    def _lose_bytes(self, path: str, inode: int) -> None:
        data, (synced, at) = _bytes(path), self._files.get(inode, (b"", 0.0))
        if synced != data:
            _write(path, self._dice.choice([synced, data[: self._dice.randint(0, len(data))], bytes(len(data))]), at)


def _take_back(file: Any, write: _Unsynced, torn: int) -> None:
    """As if only the first `torn` bytes of it had been written."""
    end = write.offset + write.amount
    at_the_end = os.fstat(file.fileno()).st_size == end
    file.seek(write.offset + torn)
    file.write(write.before[torn:])
    if end > write.size:
        file.write(bytes(max(end - file.tell(), 0)))
        file.flush()
        if at_the_end:
            file.truncate(max(write.size, write.offset + torn))
    file.flush()


def _is_sqlite(name: str) -> bool:
    return "sqlite" in name


def _bytes(path: str) -> bytes:
    with _open(path, "rb") as file:
        return bytes(file.read())


def _write(path: str, data: bytes, at: float) -> None:
    with _open(path, "wb") as file:
        file.write(data)
    os.utime(path, (at, at))


def _listing(folder: str) -> dict[str, int]:
    with _scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries}
