"""Python's file functions in the hands of a simulated disk, which is told of every step below its root."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim_disk import Disk
from sim_sqlite import SimulatedVfs

_REAL = {
    name: getattr(os, name)
    for name in ("fsync", "replace", "link", "unlink", "rmdir", "mkdir", "open", "close", "scandir")
}
_real_open = builtins.open
_vfs: SimulatedVfs | None = None


class _File(io.BufferedWriter):
    """A file being written: every write is a step, and what a dead process had not flushed is lost."""

    disk: Disk
    owner: str

    def write(self, data: Any) -> int:
        def torn() -> None:
            view = memoryview(data).cast("B")
            super(_File, self).write(view[: self.disk.dice.randint(0, len(view))])
            super(_File, self).flush()

        written: int = self.disk.step("write", lambda: super(_File, self).write(data), torn)
        return written

    def close(self) -> None:
        if not self.closed and (self.disk.cut or self.owner in self.disk.dead):
            self.raw.close()
        super().close()


@contextmanager
def watching(disk: Disk) -> Iterator[None]:
    """For the length of the block, in this process."""
    global _vfs
    _vfs = _vfs or SimulatedVfs()
    _vfs.watch(disk, Path(disk.root))
    created: set[int] = set()

    def hooked(name: str, kind: str) -> Callable[..., Any]:
        real = _REAL[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            if disk.inside(args[0]) or "dir_fd" in kwargs:
                return disk.step(kind, lambda: real(*args, **kwargs))
            return real(*args, **kwargs)

        return call

    def fsync(fd: int) -> None:
        disk.step("fsync", lambda: disk.platter.synced(fd))

    def os_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        fd: int
        if not disk.inside(path) or flags & os.O_TMPFILE == os.O_TMPFILE:
            return int(_REAL["open"](path, flags, *args, **kwargs))
        if not flags & os.O_CREAT:
            fd = _REAL["open"](path, flags, *args, **kwargs)
        else:
            fd = disk.step("create", lambda: _REAL["open"](path, flags, *args, **kwargs))
            created.add(fd)
        disk.fds[fd] = os.fspath(path).removeprefix(disk.root)
        return fd

    def close(fd: int) -> None:
        disk.fds.pop(fd, None)
        created.discard(fd)
        _REAL["close"](fd)

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        writes = any(letter in mode for letter in "wxa+")
        ours = disk.inside(file) or (isinstance(file, int) and file in created)
        if not (writes and ours) or "opener" in kwargs:  # tempfile's: without a name, and gone with its process
            return _real_open(file, mode, *args, **kwargs)
        if isinstance(file, int):
            created.discard(file)
            disk.fds.pop(file, None)
            raw = io.FileIO(file, mode.replace("b", ""))
        else:
            raw = disk.step("create", lambda: io.FileIO(file, mode.replace("b", "")))
        found = _File(raw)
        found.disk, found.owner = disk, disk.process
        disk.opened.append(found)
        return found

    def scandir(path: Any = ".") -> Any:
        """In order of names: what a folder's own order is depends on the file system."""
        return _Sorted(_REAL["scandir"](path)) if isinstance(path, int) or disk.inside(path) else _REAL["scandir"](path)

    patches: list[tuple[Any, str, Any]] = [
        (os, "fsync", fsync), (os, "open", os_open), (os, "close", close), (os, "scandir", scandir),
        (builtins, "open", opened), (io, "open", opened),
        *((os, name, hooked(name, kind)) for name, kind in
          [("replace", "rename"), ("link", "link"), ("unlink", "unlink"), ("rmdir", "unlink"), ("mkdir", "mkdir")]),
    ]  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        _vfs.watch(None, None)


class _Sorted:
    """What os.scandir gives, in order."""

    def __init__(self, entries: Any) -> None:
        self._entries = sorted(entries, key=lambda entry: entry.name)
        self._left = iter(self._entries)
        entries.close()

    def __enter__(self) -> _Sorted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> _Sorted:
        return self

    def __next__(self) -> os.DirEntry[str]:
        return next(self._left)

    def close(self) -> None:
        self._left = iter(())
