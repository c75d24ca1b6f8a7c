"""One pass over jobs.jsonl that decides what a batch runs, what becomes an error line, and whether it runs at all.

A bad row is a `RowFailure`, the rest runs; also a batch of bad rows only is accepted, and ends with errors only.
The batch as a whole is refused for: no rows, too many rows, several models, a model that is not served, and with
`strict` for any bad row. Memory: 109 bytes per row (`row_table`) and the failures; media only while they are probed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lsi_ray.archive.index import ArchiveIndex, read_member
from lsi_ray.archive.jobs_lines import Line, iter_lines
from lsi_ray.archive.media_refs import MediaRef, Suggestions
from lsi_ray.archive.messages import Kind
from lsi_ray.archive.order import Shape
from lsi_ray.archive.row_codes import bad_row, shown
from lsi_ray.archive.row_limits import DEFAULT_ROW_LIMITS, RowLimits
from lsi_ray.archive.row_table import Duplicate, RowTable, Work, count_urls, duplicates, good, make_plan
from lsi_ray.archive.rows import Request, parse_row, readable_custom_id
from lsi_ray.archive.weight import most_tokens, prompt_bytes, prompt_tokens, rendered_bytes
from lsi_ray.errors import BatchRefused, Finding, RowError

MAX_FINDINGS = 1000
_LINES_SHOWN = 10
_PROGRESS_ROWS = 1000

Probe = Callable[[Kind, bytes], None]
Progress = Callable[[int, int, int], None]
DEFAULT_SHAPE = Shape()


@dataclass(frozen=True, slots=True)
class RowFailure:
    """One bad row. Its parts are kept, not the exception, which takes twice the memory."""

    row_index: int
    line: int
    custom_id: str | None
    """None where it cannot be read."""
    code: str
    message: str
    param: str | None
    status: int | None

    @property
    def error(self) -> RowError:
        return RowError(self.code, self.message, param=self.param, status=self.status, line=self.line)


@dataclass(frozen=True, slots=True)
class Counts:
    requests: dict[str, int]
    """Rows that run, by url."""
    images: int
    videos: int
    """Of these rows, each reference counted."""
    media_files: int
    """Distinct files of the archive that rows refer to."""
    unused_files: int
    prompt_bytes: int
    """Of text, about: without `data:` URLs."""
    max_tokens: int
    """The most that all answers together may have."""


@dataclass(frozen=True, slots=True)
class Validation:
    model: str | None
    """None only when every row is bad and no single served model was given."""
    rows: int
    """Lines that are not blank, up to `max_rows`."""
    plan: NDArray[np.void]
    """`PLAN_DTYPE`, in running order; with `failures` it covers every row once."""
    shard_stops: tuple[int, ...]
    """Positions of the plan at which its shards end."""
    failures: list[RowFailure]
    """In the order of rows."""
    counts: Counts
    warnings: list[Finding]


def validate(
    file: BinaryIO,
    index: ArchiveIndex,
    *,
    served_model: str | Collection[str] | None = None,
    strict: bool = False,
    limits: RowLimits = DEFAULT_ROW_LIMITS,
    max_rows: int | None = None,
    only: Collection[int] | None = None,
    progress: Progress | None = None,
    probe: Probe | None = None,
    shape: Shape = DEFAULT_SHAPE,
) -> Validation:
    """Check every row of the plain tar `file`; of those in `only` (by row, 0-based) if it is given, and then these are
    the rows 0, 1, ... of the batch.

    `served_model`: the name or names a row may ask for, None for any. `progress(rows, bytes_done, bytes_total)` is
    told about jobs.jsonl every 1,000 rows. `probe(kind, data)` raises RowError for media that do not open; it is asked
    once per distinct kind and file. `shape`: what the plan is made for. Raises BatchRefused with all findings, at most
    1,000 and a count of the rest.
    """
    served = frozenset([served_model]) if isinstance(served_model, str) else served_model
    scan = _Scan(file, index, limits, probe)
    lines = iter_lines(file, index.jobs, limits)
    for line in lines if only is None else (line for row, line in enumerate(lines) if row in only):
        if scan.rows == max_rows:
            scan.warnings.append(Finding("rows_left_out", f"only the first {max_rows} rows run", line.number))
            break
        if scan.rows == limits.rows:
            raise BatchRefused([Finding("too_many_tasks", f"a batch has at most {limits.rows} rows", line.number)])
        scan.take(line)
        if progress is not None and scan.rows % _PROGRESS_ROWS == 0:
            progress(scan.rows, line.offset + line.length - index.jobs.offset, index.jobs.size)
    if progress is not None:
        progress(scan.rows, index.jobs.size, index.jobs.size)
    return scan.finish(served, strict, shape)


class _Models:
    """Which lines ask for which model."""

    def __init__(self) -> None:
        self.lines: dict[str, list[int]] = {}
        self.counts: dict[str, int] = {}

    def add(self, model: str, line: int) -> None:
        if model not in self.counts and len(self.counts) >= MAX_FINDINGS:
            return
        self.counts[model] = self.counts.get(model, 0) + 1
        lines = self.lines.setdefault(model, [])
        if len(lines) < _LINES_SHOWN:
            lines.append(line)

    def findings(self, served: Collection[str] | None) -> Iterator[Finding]:
        first = next(iter(self.lines), None)
        for model, lines in self.lines.items():
            if served is not None and model not in served:
                known = ", ".join(map(shown, sorted(served)))
                message = f"the model {shown(model)} of {self._where(model)} is not served here (served: {known})"
                yield Finding("model_not_found", message, lines[0], "body.model")
            if model != first and first is not None:
                other = f"line {self.lines[first][0]} asks for {shown(first)}"
                message = f"all rows must ask for one model: {self._where(model)} for {shown(model)}, but {other}"
                yield Finding("model_mismatch", message, lines[0], "body.model")

    def _where(self, model: str) -> str:
        lines, count = self.lines[model], self.counts[model]
        if count == 1:
            return f"line {lines[0]}"
        more = f" and {count - len(lines)} more" if count > len(lines) else ""
        return f"lines {', '.join(map(str, lines))}{more}"


class _Scan:
    """Takes the lines one by one and keeps what `Validation` is made of."""

    def __init__(self, file: BinaryIO, index: ArchiveIndex, limits: RowLimits, probe: Probe | None) -> None:
        self._file = file
        self._index = index
        self._limits = limits
        self._probe = probe
        self._probed: dict[tuple[Kind, str], RowError | None] = {}
        self._media = {name: member for name, member in index.members.items() if member is not index.jobs}
        self._suggest = Suggestions(self._media.keys())
        self._models = _Models()
        self._table = RowTable()
        self._used: set[str] = set()
        self._failures: list[RowFailure] = []
        self._messages: dict[str, str] = {}  # rows that fail alike share one string
        self._prompt_bytes = self._max_tokens = 0
        self.rows = 0
        self.warnings: list[Finding] = []

    def take(self, line: Line) -> None:
        row_index = self.rows
        self.rows += 1
        try:
            request = self._request(line, row_index)
        except RowError as error:
            custom_id = readable_custom_id(line.data) if line.data is not None else None
            if custom_id is not None:
                self._table.add_bad(line, row_index, custom_id)
            self._fail(row_index, line.number, custom_id, error)
            return
        text, media = prompt_bytes(request, line.length), rendered_bytes(request, self._media)
        answer = most_tokens(request, self._limits.max_tokens)
        self._table.add(line, request, Work(prompt_tokens(text, media), answer, media))
        self._prompt_bytes += text
        self._max_tokens += answer
        self._models.add(request.body["model"], line.number)

    def finish(self, served: Collection[str] | None, strict: bool, shape: Shape) -> Validation:
        rows = self._table.rows()
        for duplicate in duplicates(rows):
            self._fail_duplicate(duplicate)
        self._failures.sort(key=lambda failure: failure.row_index)
        self._refuse(served, strict)
        runnable = good(rows)
        model = next(iter(self._models.lines), None) or (next(iter(served)) if served and len(served) == 1 else None)
        self._warn()
        plan, stops = make_plan(runnable, shape)
        return Validation(model, self.rows, plan, stops, self._failures, self._count(runnable), self.warnings)

    def _request(self, line: Line, row_index: int) -> Request:
        if line.data is None:
            limit = self._limits.line_bytes
            raise bad_row("invalid_json_line", f"the line has {line.length} bytes; at most {limit} are accepted")
        request = parse_row(
            line.data,
            row_index=row_index,
            line_number=line.number,
            members=self._media,
            limits=self._limits,
            suggest=self._suggest,
        )
        self._used.update(ref.member for ref in request.media if ref.member is not None)
        if self._probe is not None:
            for ref in request.media:
                self._check_media(ref, self._probe)
        return request

    def _check_media(self, ref: MediaRef, probe: Probe) -> None:
        if ref.member is None:
            error = _try(probe, ref.kind, ref.data or b"")
        elif (key := (ref.kind, ref.member)) in self._probed:
            error = self._probed[key]
        else:
            error = _try(probe, ref.kind, read_member(self._file, self._index.members[ref.member]))
            self._probed[key] = error
        if error is not None:
            source = ref.member or "data: URL"
            raise RowError(error.code, f"{source}: {error.message}", param=ref.param, status=error.status)

    def _fail(self, row_index: int, line: int, custom_id: str | None, error: RowError) -> None:
        if len(self._messages) < MAX_FINDINGS:
            self._messages.setdefault(error.message, error.message)
        message = self._messages.get(error.message, error.message)
        self._failures.append(RowFailure(row_index, line, custom_id, error.code, message, error.param, error.status))

    def _fail_duplicate(self, duplicate: Duplicate) -> None:
        self._file.seek(duplicate.offset)
        custom_id = readable_custom_id(self._file.read(duplicate.length))
        message = f"line {duplicate.line} has the custom_id {shown(custom_id)} of line {duplicate.first_line}"
        error = bad_row("duplicate_custom_id", message, "custom_id")
        self._fail(duplicate.row_index, duplicate.line, custom_id, error)

    def _refuse(self, served: Collection[str] | None, strict: bool) -> None:
        batch = list(self._models.findings(served))
        if not self.rows:
            batch.append(Finding("empty_file", "jobs.jsonl holds no rows"))
        if not batch and not (strict and self._failures):
            return
        rows = (Finding(one.code, one.message, one.line, one.param) for one in self._failures)
        findings = list(islice(chain(batch, rows), MAX_FINDINGS))
        left = len(batch) + len(self._failures) - len(findings)
        if left:
            findings.append(Finding("more_findings", f"{left} more findings are not listed"))
        raise BatchRefused(findings)

    def _warn(self) -> None:
        for code, what, names in (
            ("ignored_files", "are no part of the format and are ignored", self._index.ignored),
            (
                "unused_files",
                "are not referred to by any row",
                [name for name in self._media if name not in self._used],
            ),
        ):
            if names:
                listed = ", ".join(map(shown, islice(names, _LINES_SHOWN)))
                more = " ..." if len(names) > _LINES_SHOWN else ""
                self.warnings.append(Finding(code, f"{len(names)} files {what}: {listed}{more}"))

    def _count(self, rows: NDArray[np.void]) -> Counts:
        images, videos = int(rows["images"].sum(dtype=np.int64)), int(rows["videos"].sum(dtype=np.int64))
        unused = len(self._media) - len(self._used)
        work = (self._prompt_bytes, self._max_tokens)
        return Counts(count_urls(rows), images, videos, len(self._used), unused, *work)


def _try(probe: Probe, kind: Kind, data: bytes) -> RowError | None:
    try:
        probe(kind, data)
    except RowError as error:
        return error
    return None
