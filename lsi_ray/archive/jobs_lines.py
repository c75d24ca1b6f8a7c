"""The lines of jobs.jsonl by their place in the tar, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from lsi_ray.archive.codes import refusal
from lsi_ray.archive.index import Member
from lsi_ray.archive.row_limits import DEFAULT_ROW_LIMITS, RowLimits

_CHUNK_BYTES = 1 << 20
_BLANKS = b" \t\r"


class Line(NamedTuple):
    number: int
    """1-based, blank lines counted."""
    offset: int
    """Of its first byte in the plain tar."""
    length: int
    """Bytes without the line ending."""
    data: bytes | None
    """None when the line is longer than `RowLimits.line_bytes`: it was measured, not kept."""


def iter_lines(file: BinaryIO, jobs: Member, limits: RowLimits = DEFAULT_ROW_LIMITS) -> Iterator[Line]:
    """Yield the lines that are not blank. LF and CRLF end a line; the last one may end without.

    Others may move the position of `file` between two lines. Raises ArchiveError `truncated` when it became shorter.
    """
    number, start = 0, jobs.offset  # of the line that is being collected
    pieces: list[bytes] = []
    held = 0
    for chunk in _chunks(file, jobs):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            number += 1
            length = held + len(end)
            line = _line(number, start, length, [*pieces, end] if pieces else [end], limits)
            if line is not None:
                yield line
            start += length + 1
            pieces, held = [], 0
        held += len(rest)
        if held <= limits.line_bytes + 1:  # one more for the \r of CRLF
            pieces.append(rest)
        else:
            pieces = [b""]
    line = _line(number + 1, start, held, pieces, limits)
    if line is not None:
        yield line


def _chunks(file: BinaryIO, jobs: Member) -> Iterator[bytes]:
    at, end = jobs.offset, jobs.offset + jobs.size
    while at < end:
        file.seek(at)
        chunk = file.read(min(_CHUNK_BYTES, end - at))
        if not chunk:
            raise refusal("truncated", f"{jobs.name!r} ends {end - at} bytes early", at)
        yield chunk
        at += len(chunk)


def _line(number: int, start: int, length: int, pieces: list[bytes], limits: RowLimits) -> Line | None:
    if length > limits.line_bytes + 1:
        return Line(number, start, length, None)
    data = b"".join(pieces).removesuffix(b"\r")
    if not data.strip(_BLANKS):
        return None
    if len(data) > limits.line_bytes:
        return Line(number, start, len(data), None)
    return Line(number, start, len(data), data)
