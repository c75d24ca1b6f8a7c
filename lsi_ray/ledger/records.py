"""What goes into the ledger and comes out of it: small frozen records that pickle, for calls between processes.

A row has two numbers: `row` is its place in jobs.jsonl (its identity in segments and output), `position` its place in
the batch's running order, 0..plan_rows-1 (its identity in the ledger). Rows that validation answered never run and
have the position `NO_POSITION`. Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from lsi_ray.errors import Finding
from lsi_ray.ledger.positions import members
from lsi_ray.ledger.states import BatchStatus

NO_POSITION = 0xFFFFFFFF
MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class NewBatch:
    """`input` and `output` are descriptions for people, already redacted. A higher `priority` runs first."""

    batch_id: str
    model: str
    input: str = ""
    output: str = ""
    deadline: float | None = None
    window: str = ""
    priority: int = 0
    caller: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """`outcome` is the terminal status that a finalizing or cancelling batch is heading for.

    `times` says when each status was last entered; `rows_total` and `plan_rows` are 0 before validation has ended.
    """

    batch_id: str
    model: str
    input: str
    output: str
    deadline: float | None
    window: str
    priority: int
    caller: str
    metadata: dict[str, str]
    options: dict[str, Any]
    status: BatchStatus
    outcome: BatchStatus | None
    created_at: float
    times: dict[str, float]
    findings: tuple[Finding, ...]
    rows_total: int
    plan_rows: int
    shard_rows: int
    erased: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """`outstanding`: rows leased and not answered. `rows_begun` - `rows_rerun`: distinct rows that ever ran.
    `deduplicated`: rows that share the answer of another."""

    batch_id: str
    status: BatchStatus
    total: int
    completed: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    rows_begun: int
    rows_rerun: int
    outstanding: int
    quarantined: int
    deduplicated: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """Positions [start, stop) to run, less those set in `done` (bit i, little-endian, is position start + i).

    `attempt` counts from 1. An `exclusive` lease is a suspect: it runs alone in its engine. `rank` orders the rows that
    wait inside an engine, smaller first (turns.py). `cache_salt` is the caller's (cache_salts.py).
    """

    batch_id: str
    shard_id: int
    session: int
    start: int
    stop: int
    attempt: int
    done: bytes
    exclusive: bool
    rank: int = 0
    cache_salt: str = ""

    def todo(self) -> tuple[int, ...]:
        return members(self.start, self.stop, self.done)


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """`wait`: nothing to hand out now, but rows are out; `idle`: no batch of this model has a row left to answer."""

    leases: tuple[Lease, ...]
    state: Literal["work", "wait", "idle"]


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One row's final line of output.jsonl or (`failed`) error.jsonl: JSON without the newline."""

    row: int
    position: int
    line: bytes
    failed: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    deduplicated: bool = False
    """It shares the answer of another row, whose tokens it tells."""


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """`refused` are positions in the file that the ledger did not take from it, having had them already."""

    name: str
    size: int
    rows: int
    sha256: str
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorNote:
    """Why one row of a segment failed, for the digest of its batch; `index` is its place in the segment."""

    index: int
    row: int
    code: str
    message: str
    custom_id: str | None


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Rows of a batch that failed with one code, and the first of them (row -1, no message: it is erased)."""

    code: str
    rows: int
    row: int
    message: str
    custom_id: str | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What a segment answers: parallel tuples, one entry per row of the segment; `errors` has one per failed row."""

    batch_id: str
    positions: tuple[int, ...]
    failed: tuple[bool, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    cached_tokens: tuple[int, ...]
    errors: tuple[ErrorNote, ...] = ()
    deduplicated: tuple[int, ...] = ()
    """Places in the segment of rows that share the answer of another."""

    @classmethod
    def of(cls, batch_id: str, results: Sequence[ResultLine]) -> Answers:
        return cls(
            batch_id,
            tuple(r.position for r in results),
            tuple(r.failed for r in results),
            tuple(r.prompt_tokens for r in results),
            tuple(r.completion_tokens for r in results),
            tuple(r.cached_tokens for r in results),
            error_notes(results),
            tuple(index for index, r in enumerate(results) if r.deduplicated),
        )


def error_notes(results: Iterable[ResultLine]) -> tuple[ErrorNote, ...]:
    return tuple(_note(index, result) for index, result in enumerate(results) if result.failed)


def _note(index: int, result: ResultLine) -> ErrorNote:
    record = msgspec.json.decode(result.line)
    error = record["error"] or record["response"]["body"]["error"]
    return ErrorNote(index, result.row, error["code"], error["message"][:MESSAGE_CHARS], record["custom_id"])


@dataclass(frozen=True, slots=True)
class CommitResult:
    """`accepted`: rows taken from this segment. 0 means that the ledger does not refer to the file: it may go."""

    accepted: int
    batch_finished: bool


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that the ledger itself answered."""

    position: int
    code: str
    message: str
