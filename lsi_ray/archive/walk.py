"""One pass over the headers of a tar: checks the structure of the whole file and yields its regular files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from lsi_ray.archive.codes import refusal
from lsi_ray.archive.detect import refuse_other_formats
from lsi_ray.archive.limits import ArchiveLimits
from lsi_ray.archive.names import clean_name
from lsi_ray.archive.tar import (
    BLOCK,
    FILE_KINDS,
    FOLDER,
    GNU_NAME,
    NO_CHANGE,
    PAX,
    PAX_GLOBAL,
    ZERO_BLOCK,
    Header,
    PaxChange,
    padded,
    parse_gnu_name,
    parse_header,
    parse_pax,
    refuse_kind,
)

# Headers that lie close together come with one large read, far ones with a small read each: payloads stay unread.
_WINDOW_BYTES = 64 * 1024
_SMALL_READ_BYTES = 4 * 1024
_SCAN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: its clean name from the top of the tar, its bytes, and where its first header is."""

    name: str
    offset: int
    size: int
    header: int


@dataclass(slots=True)
class _Pending:
    """What the extension headers before an entry say about it."""

    start: int
    pax: PaxChange = NO_CHANGE
    long_name: bytes | None = None
    kinds: set[bytes] = field(default_factory=set)


class _Window:
    """Random reads of `file` through one buffer. `read` gives all that was asked for or raises `truncated`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = 0
        self._held = b""

    def read(self, at: int, length: int, what: str) -> bytes:
        begin = at - self._start
        if begin < 0 or begin + length > len(self._held):
            self._load(at, length, what)
            begin = 0
        return self._held[begin : begin + length]

    def _load(self, at: int, length: int, what: str) -> None:
        near = at < self._start + len(self._held) + _WINDOW_BYTES
        self._file.seek(at)
        self._held = self._file.read(max(length, _WINDOW_BYTES if near else _SMALL_READ_BYTES))
        self._start = at
        if len(self._held) < length:
            raise refusal("truncated", f"the tar ends inside {what}", at + len(self._held))


def walk(file: BinaryIO, size: int, limits: ArchiveLimits) -> Iterator[File]:
    """Yield the regular files of the tar of `size` bytes, in its order; at the end, all of its structure is checked."""
    window = _Window(file)
    refuse_other_formats(window.read(0, min(size, BLOCK), "its first header"))
    at = entries = global_headers = 0
    pending = _Pending(0)
    while (block := window.read(at, BLOCK, "a header, or before its two end-of-archive blocks")) != ZERO_BLOCK:
        header = parse_header(block, at)
        if header.kind in (PAX, PAX_GLOBAL, GNU_NAME):
            at = _extend(pending, header, at, window, limits)
            global_headers += header.kind == PAX_GLOBAL
        else:
            entry, is_file = _entry(header, pending, at, limits)
            at = entry.offset + padded(entry.size)
            if at > size:
                raise refusal("truncated", f"the tar ends inside {entry.name!r}, {at - size} bytes early", size)
            if is_file:
                yield entry
            entries += 1
            pending = _Pending(at)
        if entries > limits.members or global_headers > limits.pax_globals:
            many = f"{limits.members} entries or {limits.pax_globals} global headers"
            raise refusal("too_large", f"the tar has more than {many}", at)
    if pending.kinds:
        raise refusal("bad_header", "the archive ends where the entry of an extension header should be", at)
    window.read(at, 2 * BLOCK, "its two end-of-archive blocks")
    _refuse_trailing(file, at, size)


def _extend(pending: _Pending, header: Header, at: int, window: _Window, limits: ArchiveLimits) -> int:
    """Read an extension header into `pending`; the offset of the next header."""
    if header.size > limits.pax_bytes:
        raise refusal("too_large", f"a pax header or long name has {header.size} bytes, over {limits.pax_bytes}", at)
    if header.kind in pending.kinds:
        raise refusal("bad_header", "one entry has two extension headers of one kind", at)
    payload = window.read(at + BLOCK, padded(header.size), "a pax header or long name")[: header.size]
    if header.kind == GNU_NAME:
        pending.long_name = parse_gnu_name(payload, at)
    else:
        change = parse_pax(payload, at, limits, is_global=header.kind == PAX_GLOBAL)
        pending.pax = change if header.kind == PAX else pending.pax
    if header.kind != PAX_GLOBAL:
        pending.kinds.add(header.kind)
    return at + BLOCK + padded(header.size)


def _entry(header: Header, pending: _Pending, at: int, limits: ArchiveLimits) -> tuple[File, bool]:
    """The entry whose last header is at `at`, and whether it is a regular file (else a folder, of size 0)."""
    if pending.pax.path and pending.long_name:
        raise refusal("bad_header", "an entry has both a pax path and a GNU long name", pending.start)
    raw = pending.pax.path or pending.long_name or header.name
    name = clean_name(raw, pending.start, limits)
    if header.kind not in FILE_KINDS and header.kind != FOLDER:
        refuse_kind(header.kind, name, at)
    size = _entry_size(header, pending.pax, name, at)
    if size > limits.member_bytes:
        message = f"{name!r} has {size} bytes; at most {limits.member_bytes} are accepted"
        raise refusal("too_large", message, pending.start)
    is_folder = header.kind == FOLDER or raw.endswith(b"/")
    if is_folder and size:
        raise refusal("bad_header", f"the folder {name!r} has {size} bytes", at)
    if not is_folder and not name:
        raise refusal("unsafe_path", f"the file name {raw!r} names a folder", at)
    return File(name, at + BLOCK, size, pending.start), not is_folder


def _entry_size(header: Header, pax: PaxChange, name: str, at: int) -> int:
    """A pax size is for what the header cannot say, where that has 0. Two sizes would be two archives in one."""
    if pax.size is not None and header.size not in (0, pax.size):
        raise refusal("bad_header", f"{name!r} has {header.size} bytes in its header, {pax.size} in its pax header", at)
    return header.size if pax.size is None else pax.size


def _refuse_trailing(file: BinaryIO, at: int, size: int) -> None:
    """Only zeros may follow the first zero block: the second one, and what fills up GNU's 10 KiB records."""
    zeros = bytes(_SCAN_BYTES)
    file.seek(at)
    while at < size:
        chunk = file.read(min(size - at, _SCAN_BYTES))
        if not chunk:
            raise refusal("truncated", "the tar became shorter while it was read", at)
        if chunk != zeros[: len(chunk)]:
            at += len(chunk) - len(chunk.lstrip(b"\0"))
            raise refusal("trailing_data", "the end of the tar is followed by something other than zeros", at)
        at += len(chunk)
