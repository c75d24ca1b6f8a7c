"""SQLite's own system calls in the hands of the simulation: a VFS around the one of the library that Python uses.

Every write, truncation, sync and deletion of a database or its WAL under `root` is told to a `Watcher` first, which may
refuse it (the process is dead, the disk is full). What is unsynced can then be taken back as a power cut would.

No compiler and no other SQLite: the functions of `libsqlite3` are reached by ctypes, in the struct layouts that
sqlite3.h has promised since 3.7.6 (io_methods 3, vfs 1).
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import sqlite3
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, Protocol

OK, IOERR = 0, 10
_VFS_NAME = b"lsi-simulation"


class Watcher(Protocol):
    def sqlite_op(self, kind: str, path: str) -> int:
        """0 to go on, or SQLite's error code to give back instead. `kind`: write, truncate, sync, delete."""
        ...

    def sqlite_wrote(self, path: str, offset: int, amount: int, before: bytes, size: int) -> None:
        """`before` is what lay there, as far as there was anything; `size` the file's size before."""
        ...

    def sqlite_synced(self, path: str) -> None: ...


_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_SIZE = CFUNCTYPE(c_int, c_void_p, POINTER(c_int64))
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)


class _Methods(ctypes.Structure):
    _fields_ = [
        ("version", c_int),
        *((name, c_void_p) for name in ("close", "read", "write", "truncate", "sync", "size")),
        *((f"rest{number}", c_void_p) for number in range(12)),
    ]


class _Vfs(ctypes.Structure):
    _fields_ = [
        *((name, c_int) for name in ("version", "file_bytes", "path_bytes")),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        *((name, c_void_p) for name in ("open", "delete")),
        *((f"rest{number}", c_void_p) for number in range(14)),
    ]


class _File(ctypes.Structure):
    _fields_ = [("methods", POINTER(_Methods))]


def _library() -> ctypes.CDLL:
    """The one that `sqlite3` is linked with, or the interpreter itself where it is linked in."""
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "libsqlite3" in line}
    for name in (*paths, getattr(_sqlite3, "__file__", None), None):
        library = ctypes.CDLL(name)
        if hasattr(library, "sqlite3_vfs_register"):
            return library
    raise RuntimeError("SQLite's functions cannot be reached in this Python: no simulated disk")


class SimulatedVfs:
    """Made once per process (SQLite keeps pointers into it); `watch` says who is told, None: nobody."""

    def __init__(self) -> None:
        library = _library()
        library.sqlite3_vfs_find.restype = c_void_p
        library.sqlite3_vfs_find.argtypes = [c_char_p]
        library.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
        sqlite3.connect(":memory:").close()  # initialises the library
        self.watcher: Watcher | None = None
        self.root = ""
        self._paths: dict[int, tuple[str, _Real]] = {}
        self._patched: dict[int, tuple[_Methods, _Real]] = {}
        original = _Vfs.from_address(library.sqlite3_vfs_find(None))
        self._open, self._delete = _OPEN(original.open), _DELETE(original.delete)
        self._vfs = _Vfs.from_buffer_copy(original)
        self._vfs.name = _VFS_NAME
        # Kept as attributes: SQLite does not keep them alive.
        self._hooks = (_OPEN(self._on_open), _DELETE(self._on_delete))
        self._file_hooks = (_WRITE(self._on_write), _TRUNCATE(self._on_truncate), _SYNC(self._on_sync))
        self._vfs.open, self._vfs.delete = (_address(hook) for hook in self._hooks)
        library.sqlite3_vfs_register(ctypes.addressof(self._vfs), 1)

    def watch(self, watcher: Watcher | None, root: Path | None) -> None:
        self.watcher, self.root = watcher, f"{root}/"

    def _on_open(self, vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        code = self._open(vfs, name, file, flags, out)
        path = os.fsdecode(ctypes.string_at(name)) if name else ""
        if code == OK and self.watcher is not None and path.startswith(self.root):
            methods, real = self._methods(file)
            _File.from_address(file).methods = ctypes.pointer(methods)
            self._paths[file] = (path, real)
        return int(code)

    def _methods(self, file: int) -> tuple[_Methods, _Real]:
        """This file's functions with ours among them."""
        original = _File.from_address(file).methods
        key = ctypes.addressof(original.contents)
        if key not in self._patched:
            patched = _Methods.from_buffer_copy(original.contents)
            patched.write, patched.truncate, patched.sync = (_address(hook) for hook in self._file_hooks)
            self._patched[key] = (patched, _Real(original.contents))
        return self._patched[key]

    def _on_write(self, file: int, data: int, amount: int, offset: int) -> int:
        path, real = self._paths[file]
        if self.watcher is None:
            return int(real.write(file, data, amount, offset))
        if refused := self.watcher.sqlite_op("write", path):
            return refused
        size, before = real.at(file, offset, amount)
        code = real.write(file, data, amount, offset)
        self.watcher.sqlite_wrote(path, offset, amount, before, size)
        return int(code)

    def _on_truncate(self, file: int, size: int) -> int:
        path, real = self._paths[file]
        if self.watcher is None:
            return int(real.truncate(file, size))
        if refused := self.watcher.sqlite_op("truncate", path):
            return refused
        had, _ = real.at(file, 0, 0)
        _, before = real.at(file, size, max(had - size, 0))
        code = real.truncate(file, size)
        self.watcher.sqlite_wrote(path, size, 0, before, had)
        return int(code)

    def _on_sync(self, file: int, flags: int) -> int:
        path, real = self._paths[file]
        if self.watcher is None:
            return int(real.sync(file, flags))
        if refused := self.watcher.sqlite_op("sync", path):
            return refused
        code = real.sync(file, flags)
        self.watcher.sqlite_synced(path)
        return int(code)

    def _on_delete(self, vfs: int, name: bytes, sync_folder: int) -> int:
        path = os.fsdecode(name)
        if self.watcher is not None and path.startswith(self.root):
            if refused := self.watcher.sqlite_op("delete", path):
                return refused
            self.watcher.sqlite_synced(path)
        return int(self._delete(vfs, name, sync_folder))


_SIZE_FOUND = c_int64()
_SIZE_FOUND_AT = ctypes.pointer(_SIZE_FOUND)


class _Real:
    """The functions of the library for one kind of file."""

    def __init__(self, methods: _Methods) -> None:
        self.write, self.truncate = _WRITE(methods.write), _TRUNCATE(methods.truncate)
        self.sync, self._read, self._size = _SYNC(methods.sync), _WRITE(methods.read), _SIZE(methods.size)

    def at(self, file: int, offset: int, amount: int) -> tuple[int, bytes]:
        """The file's size, and the bytes there now, as far as it has any."""
        size = _SIZE_FOUND
        self._size(file, _SIZE_FOUND_AT)
        amount = max(min(amount, size.value - offset), 0)
        if not amount:
            return size.value, b""
        buffer = ctypes.create_string_buffer(amount)
        self._read(file, ctypes.addressof(buffer), amount, offset)
        return size.value, buffer.raw


def _address(function: Any) -> int | None:
    return ctypes.cast(function, c_void_p).value
