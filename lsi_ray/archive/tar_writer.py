"""Writes the tars of lsi_ray: the same bytes for the same content, readable by every tar since 1988.

Members are plain ustar; a name that does not fit there (over 100 bytes, or not ASCII) and a size of 8 GiB or
more get a pax header before them. Owner, mode and time are constants, so that equal content gives an equal archive.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from isal import igzip

from lsi_ray.archive.codes import refusal

BLOCK = 512
_COPY_BYTES = 1 << 20
_USTAR_NAME_BYTES = 100
_USTAR_SIZE_END = 8**11


class TarWriter:
    """Appends members to `fileobj`, which need only have `write`. `close` ends the archive, not the file."""

    def __init__(self, fileobj: BinaryIO) -> None:
        self._file = fileobj
        self._closed = False

    def add(self, name: str, size: int, source: BinaryIO) -> None:
        """Copy exactly `size` bytes of `source`. Raises ArchiveError `changed_file` when it holds fewer or more."""
        self._header(name, size)
        left = size
        while left:
            piece = source.read(min(left, _COPY_BYTES))
            if not piece:
                raise refusal("changed_file", f"{name!r} ended {left} bytes before its size of {size} bytes")
            self._file.write(piece)
            left -= len(piece)
        if source.read(1):
            raise refusal("changed_file", f"{name!r} is longer than its size of {size} bytes")
        self._file.write(bytes(-size % BLOCK))

    def add_bytes(self, name: str, data: bytes) -> None:
        self.add(name, len(data), io.BytesIO(data))

    def close(self) -> None:
        """Write the two zero blocks that end an archive. Without them it is refused as truncated, as it should be."""
        if not self._closed:
            self._file.write(bytes(2 * BLOCK))
            self._closed = True

    def _header(self, name: str, size: int) -> None:
        records = b""
        raw = name.encode()
        short = name.encode("ascii", "replace")[:_USTAR_NAME_BYTES]
        if short != raw:
            records += _pax_record("path", raw)
        if size >= _USTAR_SIZE_END:
            records += _pax_record("size", str(size).encode())
        if records:
            self._file.write(_ustar(b"PaxHeaders/" + short[:80], len(records), b"x"))
            self._file.write(records + bytes(-len(records) % BLOCK))
        self._file.write(_ustar(short, size if size < _USTAR_SIZE_END else 0, b"0"))


def open_gzip(target: BinaryIO, level: int = 1) -> BinaryIO:
    """A gzip writer over `target`, level 0 (fastest) to 3; no time, no name, so equal input gives equal output.

    Closing it finishes the gzip stream and leaves `target` open.
    """
    return igzip.IGzipFile(filename="", mode="wb", compresslevel=level, fileobj=target, mtime=0)  # type: ignore[no-any-return]


def _ustar(name: bytes, size: int, kind: bytes) -> bytes:
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"00000000000\0"
    tail = (kind + bytes(100) + b"ustar\x0000").ljust(356, b"\0")
    checksum = sum(head) + sum(tail) + 8 * ord(" ")
    return head + b"%06o\0 " % checksum + tail


def _pax_record(key: str, value: bytes) -> bytes:
    """`LENGTH key=value\\n`, where LENGTH counts itself."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body
