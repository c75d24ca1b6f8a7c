"""Segments: durable files of finished results, one per commit.

    "LSISEG1\\n" | the lines, one after another | table, one ENTRY per line | TRAILER | sha256 of all before it

Invariants: a segment appears whole and durable under its name or not at all; the name ends in its content's digest, so
that writing it again never changes what the ledger refers to; every bit of the file is covered (lines by a CRC each,
checked at every read, the table by a CRC, the rest by comparison with the ledger's SegmentRef), so damage is noticed.
The table at the end lets 200,000 rows in thousands of files be indexed without touching their lines.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.records import ResultLine, SegmentRef
from lsi_ray.ledger.workdir import check_name, replacing

MAGIC = b"LSISEG1\n"
ENTRY = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u4"),
        ("crc", "<u4"),
        ("row", "<u4"),
        ("position", "<u4"),
        ("prompt_tokens", "<u4"),
        ("completion_tokens", "<u4"),
        ("cached_tokens", "<u4"),
        ("flags", "u1"),
    ]
)
_FAILED, _DEDUPLICATED = 1, 2
_PACK_ENTRY = struct.Struct("<QIIIIIIIB")
_TRAILER = struct.Struct("<QII")  # offset of the table, rows, CRC-32 of the table
_DIGEST = hashlib.sha256().digest_size
_WINDOW_BYTES = 32 << 20
_WINDOW_ROWS = 1 << 14

Table = NDArray[np.void]


class SegmentError(LedgerError):
    """`segment_corrupt`: the file `segment` is not what was committed; see Ledger.disown."""

    def __init__(self, segment: str, why: str) -> None:
        super().__init__("segment_corrupt", f"segment {segment} is damaged: {why}")
        self.segment = segment


def write_segment(folder: Path, name: str, results: Iterable[ResultLine]) -> SegmentRef:
    """Write `<name>-<digest>.seg`, durable on return. The same results under the same name give the same file."""
    writer = _Writer()
    with replacing(folder / check_name(name), lambda: writer.file_name(name)) as file:
        writer.write(file, results)
    return SegmentRef(writer.file_name(name), writer.size, writer.rows, writer.digest.hexdigest())


class _Writer:
    """Writes as it goes: validation may answer millions of rows."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.rows = 0
        self._table = bytearray()

    def file_name(self, name: str) -> str:
        return check_name(f"{name}-{self.digest.hexdigest()[:16]}.seg")

    def write(self, file: BinaryIO, results: Iterable[ResultLine]) -> None:
        self._put(file, MAGIC)
        for r in results:
            self._table += _PACK_ENTRY.pack(
                self.size, len(r.line), zlib.crc32(r.line), r.row, r.position,
                r.prompt_tokens, r.completion_tokens, r.cached_tokens,
                _FAILED * r.failed | _DEDUPLICATED * r.deduplicated,
            )  # fmt: skip
            self._put(file, r.line)
            self.rows += 1
        trailer = _TRAILER.pack(self.size, self.rows, zlib.crc32(self._table))
        self._put(file, bytes(self._table))
        self._put(file, trailer)
        file.write(self.digest.digest())
        self.size += _DIGEST

    def _put(self, file: BinaryIO, data: bytes) -> None:
        file.write(data)
        self.digest.update(data)
        self.size += len(data)


def verify_segment(path: Path, ref: SegmentRef) -> None:
    """Read the whole file and compare it with what was committed; SegmentError if it differs or is gone."""
    digest = hashlib.sha256()
    with _opened(path, ref) as file:
        left = ref.size - _DIGEST
        while left > 0 and (piece := file.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        if digest.hexdigest() != ref.sha256 or file.read() != digest.digest():
            raise SegmentError(ref.name, "its SHA-256 is another")


def damaged(segments: Iterable[tuple[Path, SegmentRef]]) -> list[SegmentRef]:
    """Those that fail `verify_segment`."""
    found = []
    for path, ref in segments:
        try:
            verify_segment(path, ref)
        except SegmentError:
            found.append(ref)
    return found


def read_segment(path: Path, ref: SegmentRef) -> list[ResultLine]:
    """All results of a verified segment, refused ones included, as they were written."""
    verify_segment(path, ref)
    table = _read_table(path, ref)
    data = path.read_bytes()
    return [_result(entry, data[entry[0] : entry[0] + entry[1]]) for entry in table.tolist()]


def _opened(path: Path, ref: SegmentRef) -> BinaryIO:
    try:
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except FileNotFoundError as error:
        raise SegmentError(ref.name, "it is gone") from error
    size = os.fstat(file.fileno()).st_size
    if size != ref.size:
        file.close()
        raise SegmentError(ref.name, f"it has {size} bytes instead of {ref.size}")
    return file


def _read_table(path: Path, ref: SegmentRef) -> Table:
    size = ref.rows * ENTRY.itemsize
    at = ref.size - _DIGEST - _TRAILER.size - size
    with _opened(path, ref) as file:
        head = file.read(len(MAGIC))
        tail = os.pread(file.fileno(), ref.size - at, at) if at >= len(MAGIC) else b""
    table, trailer, digest = tail[:size], tail[size : size + _TRAILER.size], tail[size + _TRAILER.size :]
    if head != MAGIC or trailer != _TRAILER.pack(at, ref.rows, zlib.crc32(table)) or digest.hex() != ref.sha256:
        raise SegmentError(ref.name, "its header, table or trailer is another")
    return np.frombuffer(table, dtype=ENTRY)


def _result(entry: tuple[Any, ...], line: bytes) -> ResultLine:
    _, _, _, row, position, prompt_tokens, completion_tokens, cached_tokens, flags = entry
    failed, deduplicated = bool(flags & _FAILED), bool(flags & _DEDUPLICATED)
    return ResultLine(row, position, line, failed, prompt_tokens, completion_tokens, cached_tokens, deduplicated)


class Results:
    """The finished rows of a batch over its segments, in commit order; of several lines for a row the first counts.

    Holds about 65 bytes a row, reads lines in windows of 32 MiB. Raises SegmentError where a file is damaged.
    """

    def __init__(self, segments: Iterable[tuple[Path, SegmentRef]]) -> None:
        self._segments = list(segments)
        tables = [_accepted(_read_table(path, ref), ref) for path, ref in self._segments]
        self._segment_of = np.repeat(np.arange(len(tables), dtype=np.uint32), [len(table) for table in tables])
        self._table = np.concatenate(tables) if tables else np.empty(0, ENTRY)

    def __len__(self) -> int:
        return len(np.unique(self._table["row"]))

    def rows_in_order(
        self, total: int, missing: Callable[[int], ResultLine], *, first: int = 0
    ) -> Iterator[ResultLine]:
        """One result for each row first..total-1, from `missing(row)` where no segment has it."""
        entry_of = self._entry_of(total)[first:]
        for begin, end in self._windows(entry_of):
            window = entry_of[begin:end]
            lines = self._lines(window[window >= 0])
            for row, index in enumerate(window.tolist(), first + begin):
                yield missing(row) if index < 0 else _result(self._table[index].item(), lines[index])

    def spread(self, most: int) -> list[ResultLine]:
        """At most so many of the rows that are there, evenly from the first to the last."""
        _, entries = np.unique(self._table["row"], return_index=True)
        chosen = entries[np.linspace(0, max(len(entries) - 1, 0), min(most, len(entries)), dtype=np.int64)]
        lines = self._lines(chosen)
        return [_result(self._table[index].item(), lines[index]) for index in chosen.tolist()]

    def _entry_of(self, total: int) -> NDArray[np.int64]:
        """Row to its entry in the table, -1 for none. Reversed, because the last assignment to an index holds."""
        rows = self._table["row"].astype(np.int64)
        if len(rows) and rows.max() >= total:
            raise LedgerError("bad_answers", f"a segment holds row {rows.max()} of a batch of {total} rows")
        entry_of = np.full(total, -1, dtype=np.int64)
        entry_of[rows[::-1]] = np.arange(len(rows) - 1, -1, -1)
        return entry_of

    def _windows(self, entry_of: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Ranges of rows whose lines are read together: bounded in bytes (one line at least) and rows."""
        lengths = np.zeros(len(entry_of), dtype=np.int64)
        present = entry_of >= 0
        lengths[present] = self._table["length"][entry_of[present]]
        ends = np.cumsum(lengths)
        first, read = 0, 0
        while first < len(ends):
            by_bytes = int(np.searchsorted(ends, read + _WINDOW_BYTES, side="right"))
            last = min(max(by_bytes, first + 1), first + _WINDOW_ROWS, len(ends))
            yield first, last
            first, read = last, int(ends[last - 1])

    def _lines(self, entries: NDArray[np.int64]) -> dict[int, bytes]:
        """The lines of these entries, each file opened once and read forwards."""
        ordered = np.sort(entries)  # entries stand by segment, then by offset
        lines: dict[int, bytes] = {}
        owners = self._segment_of[ordered]
        starts = np.flatnonzero(np.diff(owners, prepend=-1)) if len(ordered) else ordered
        for group in np.split(ordered, starts[1:]):
            if len(group):
                self._read_group(group, lines)
        return lines

    def _read_group(self, group: NDArray[np.int64], lines: dict[int, bytes]) -> None:
        path, ref = self._segments[self._segment_of[group[0]]]
        with _opened(path, ref) as file:
            for index, entry in zip(group.tolist(), self._table[group].tolist(), strict=True):
                line = os.pread(file.fileno(), entry[1], entry[0])
                if zlib.crc32(line) != entry[2]:
                    raise SegmentError(ref.name, f"the line of row {entry[3]} has another CRC")
                lines[index] = line


def _accepted(table: Table, ref: SegmentRef) -> Table:
    return table[~np.isin(table["position"], ref.refused)] if ref.refused else table
