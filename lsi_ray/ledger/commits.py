"""Results come in by whole segments; the first answer to a position wins.

Invariants: a segment that gave at least one row is recorded with exactly the positions taken from it (so that a lost
or damaged file can be disowned without reading it) and those refused; the counters are the sums over segments and
quarantined rows. Only an `in_progress` batch takes anything.

A stale session's results are taken too: a result depends on its row alone, so it is as good as a new session's, and
refusing it would run the row again. Fencing protects leases; "first wins" protects results.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from lsi_ray.errors import LedgerError
from lsi_ray.ledger import batches, digest, positions, shards
from lsi_ray.ledger.records import Answers, CommitResult, SegmentRef
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import check_name

SUMS = ("completed", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "deduplicated")


def commit(db: sqlite3.Connection, segment: SegmentRef, answers: Answers, now: float) -> CommitResult:
    batch = batches.find(db, answers.batch_id)
    known = _segment(db, batch["batch_no"], segment)
    if known is not None:
        accepted = known["completed"] + known["failed"]
        return CommitResult(accepted, batch["status"] == BatchStatus.FINALIZING)
    if batch["status"] != BatchStatus.IN_PROGRESS:
        return CommitResult(0, False)
    given = _by_position(segment, answers)
    taken = _mark(db, batch["batch_no"], sorted(given))
    if not taken:
        return CommitResult(0, False)
    sums = _sums(answers, [given[position] for position in taken])
    record(db, batch["batch_no"], segment, positions.pack(taken), sorted(given.keys() - set(taken)), sums)
    batches.count(db, batch["batch_no"], **sums)
    if answers.errors:
        indices = {given[position] for position in taken}
        digest.add(db, batch["batch_no"], segment.name, [note for note in answers.errors if note.index in indices])
    return CommitResult(len(taken), batches.finish_if_answered(db, batch["batch_no"], now))


def _segment(db: sqlite3.Connection, batch_no: int, ref: SegmentRef) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM segments WHERE batch_no = ? AND name = ?", (batch_no, ref.name)
    ).fetchone()
    if row is not None and row["sha256"] != ref.sha256:
        raise LedgerError("segment_conflict", f"segment {ref.name} was committed before with other content")
    return row


def _by_position(segment: SegmentRef, answers: Answers) -> dict[int, int]:
    """Position to its index in the parallel tuples."""
    columns = (answers.failed, answers.prompt_tokens, answers.completion_tokens, answers.cached_tokens)
    given = {position: index for index, position in enumerate(answers.positions)}
    if {len(given), *map(len, columns)} != {segment.rows}:
        raise LedgerError("bad_answers", f"the answers of {segment.name} are not {segment.rows} different positions")
    return given


def _mark(db: sqlite3.Connection, batch_no: int, ordered: list[int]) -> list[int]:
    """Set the bits of the positions that were open; those, ascending."""
    taken: list[int] = []
    for shard, share in shards.holding(db, batch_no, ordered):
        start, done = shard["start"], shard["done"]
        new = [position for position in share if not positions.contains(start, done, position)]
        if new:
            shards.set_done(db, shard, positions.with_bits(start, done, new, True))
            taken += new
    return taken


def _sums(answers: Answers, indices: Iterable[int]) -> dict[str, int]:
    sums, shared = dict.fromkeys(SUMS, 0), set(answers.deduplicated)
    for i in indices:
        sums["failed" if answers.failed[i] else "completed"] += 1
        sums["prompt_tokens"] += answers.prompt_tokens[i]
        sums["completion_tokens"] += answers.completion_tokens[i]
        sums["cached_tokens"] += answers.cached_tokens[i]
        sums["deduplicated"] += i in shared
    return sums


def record(
    db: sqlite3.Connection,
    batch_no: int,
    ref: SegmentRef,
    taken: bytes | None,
    refused: list[int],
    sums: dict[str, int],
) -> None:
    """`taken` None: rows that validation answered, which have no positions."""
    db.execute(
        f"INSERT INTO segments (batch_no, name, size, rows, sha256, positions, refused, {', '.join(SUMS)})"
        f" VALUES (?, ?, ?, ?, ?, ?, ?{', ?' * len(SUMS)})",
        (
            batch_no,
            check_name(ref.name),
            ref.size,
            ref.rows,
            ref.sha256,
            taken,
            positions.pack(refused) if refused else None,
            *(sums[name] for name in SUMS),
        ),
    )


def refs(db: sqlite3.Connection, batch_no: int) -> list[SegmentRef]:
    rows = db.execute("SELECT * FROM segments WHERE batch_no = ? ORDER BY segment_no", (batch_no,))
    return [_ref(row) for row in rows]


def _ref(row: sqlite3.Row) -> SegmentRef:
    refused = positions.unpack(row["refused"]) if row["refused"] else ()
    return SegmentRef(row["name"], row["size"], row["rows"], row["sha256"], refused)


def disown(db: sqlite3.Connection, batch_id: str, name: str, now: float) -> int:
    """Forget a damaged segment; its rows are open again. A batch that was packing goes back to running."""
    batch = batches.find(db, batch_id)
    batch_no, status = batch["batch_no"], BatchStatus(batch["status"])
    row = db.execute("SELECT * FROM segments WHERE batch_no = ? AND name = ?", (batch_no, name)).fetchone()
    if row is None:
        return 0
    if status.terminal:
        raise LedgerError("illegal_transition", f"batch {batch_id} is {status}: its segment {name} stays")
    if row["positions"] is None:
        raise LedgerError("not_disownable", f"{name} holds rows that validation answered: validate and write it again")
    ordered = list(positions.unpack(row["positions"]))
    for shard, share in list(shards.holding(db, batch_no, ordered)):
        shards.reopen(db, shard, share)
    batches.count(db, batch_no, **{column: -row[column] for column in SUMS})
    db.execute("DELETE FROM segments WHERE segment_no = ?", (row["segment_no"],))
    digest.remove(db, batch_no, name)
    if status == BatchStatus.FINALIZING and batch["outcome"] == BatchStatus.COMPLETED:
        batches.move(db, batch, BatchStatus.IN_PROGRESS, now)
    return len(ordered)
