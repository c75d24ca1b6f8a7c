"""Rows of `batches`, `counts` and `history`: creation, the one place where a status changes, and reading."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, replace

import msgspec

from lsi_ray.errors import Finding, LedgerError
from lsi_ray.ledger.records import Batch, NewBatch, Progress
from lsi_ray.ledger.states import BatchStatus, check
from lsi_ray.ledger.workdir import check_name

COUNTERS = (
    "completed",
    "failed",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "deduplicated",
    "rows_begun",
    "rows_rerun",
)

SELECT = "SELECT * FROM batches JOIN counts USING (batch_no)"


def insert(db: sqlite3.Connection, new: NewBatch, now: float) -> None:
    check_name(new.batch_id)
    # Without the deadline: it is `now + window` anew on every repeat, and the first one holds.
    request = msgspec.json.encode(asdict(replace(new, deadline=None)), order="deterministic").decode()
    known = db.execute("SELECT request FROM batches WHERE batch_id = ?", (new.batch_id,)).fetchone()
    if known is not None:
        if known["request"] != request:
            raise LedgerError("batch_conflict", f"batch {new.batch_id} exists with other content: {_diff(known, new)}")
        return
    cursor = db.execute(
        "INSERT INTO batches (batch_id, request, model, caller, priority, deadline, status, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (new.batch_id, request, new.model, new.caller, new.priority, new.deadline, BatchStatus.VALIDATING, now),
    )
    db.execute("INSERT INTO counts (batch_no) VALUES (?)", (cursor.lastrowid,))
    _remember(db, cursor.lastrowid, BatchStatus.VALIDATING, now)


def _diff(known: sqlite3.Row, new: NewBatch) -> str:
    before, after = msgspec.json.decode(known["request"]), asdict(new)
    return ", ".join(key for key in before if key != "deadline" and before[key] != after[key])


def find(db: sqlite3.Connection, batch_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(f"{SELECT} WHERE batch_id = ?", (batch_id,)).fetchone()
    if row is None:
        raise LedgerError("no_such_batch", f"no batch {batch_id!r}")
    return row


def move(
    db: sqlite3.Connection, row: sqlite3.Row, to: BatchStatus, now: float, outcome: BatchStatus | None = None
) -> None:
    """Take a declared step. A batch that leaves `in_progress` leaves its leases behind."""
    check(BatchStatus(row["status"]), to)
    batch_no = row["batch_no"]
    db.execute("UPDATE batches SET status = ?, outcome = ? WHERE batch_no = ?", (to, outcome, batch_no))
    _remember(db, batch_no, to, now)
    if to != BatchStatus.IN_PROGRESS:
        db.execute(
            "UPDATE shards SET state = 0, session = NULL, replica = NULL WHERE batch_no = ? AND state IN (1, 2)",
            (batch_no,),
        )


def _remember(db: sqlite3.Connection, batch_no: int | None, status: BatchStatus, now: float) -> None:
    db.execute(
        "INSERT INTO history SELECT ?1, coalesce(max(step), 0) + 1, ?2, ?3 FROM history WHERE batch_no = ?1",
        (batch_no, status, now),
    )


def count(db: sqlite3.Connection, batch_no: int, **changes: int) -> None:
    assignments = ", ".join(f"{name} = {name} + :{name}" for name in changes)
    db.execute(f"UPDATE counts SET {assignments} WHERE batch_no = :batch_no", {"batch_no": batch_no, **changes})


def finish_if_answered(db: sqlite3.Connection, batch_no: int, now: float) -> bool:
    """Move an in_progress batch without an open row to `finalizing`."""
    row = db.execute(f"{SELECT} WHERE batch_no = ?", (batch_no,)).fetchone()
    if row["status"] != BatchStatus.IN_PROGRESS or row["completed"] + row["failed"] < row["rows_total"]:
        return False
    move(db, row, BatchStatus.FINALIZING, now, BatchStatus.COMPLETED)
    return True


def read(db: sqlite3.Connection, row: sqlite3.Row) -> Batch:
    request = msgspec.json.decode(row["request"])
    history = db.execute("SELECT status, at FROM history WHERE batch_no = ? ORDER BY step", (row["batch_no"],))
    return Batch(
        batch_id=row["batch_id"],
        model=row["model"],
        input=request["input"],
        output=request["output"],
        deadline=row["deadline"],
        window=request["window"],
        priority=row["priority"],
        caller=row["caller"],
        metadata=request["metadata"],
        options=request["options"],
        status=BatchStatus(row["status"]),
        outcome=BatchStatus(row["outcome"]) if row["outcome"] else None,
        created_at=row["created_at"],
        times={status: at for status, at in history},
        findings=tuple(Finding(**entry) for entry in msgspec.json.decode(row["findings"])),
        rows_total=row["rows_total"],
        plan_rows=row["plan_rows"],
        shard_rows=row["shard_rows"],
        erased=bool(row["erased"]),
    )


def select(
    db: sqlite3.Connection,
    statuses: Sequence[BatchStatus],
    model: str | None,
    caller: str | None,
    after: str | None,
    limit: int,
) -> tuple[Batch, ...]:
    where, values = ["1"], list[object]()
    if statuses:
        where.append(f"status IN ({', '.join('?' * len(statuses))})")
        values += statuses
    for column, value in (("model", model), ("caller", caller)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if after is not None:
        where.append("batch_no < ?")
        values.append(find(db, after)["batch_no"])
    rows = db.execute(f"{SELECT} WHERE {' AND '.join(where)} ORDER BY batch_no DESC LIMIT ?", (*values, limit))
    return tuple(read(db, row) for row in rows.fetchall())


def progress(db: sqlite3.Connection, row: sqlite3.Row) -> Progress:
    batch_no = row["batch_no"]
    # The current session of the model holds every lease there is, which makes this one look-up in `shards_held`.
    held = db.execute(
        "SELECT sum(todo) FROM shards WHERE batch_no = ? AND state IN (1, 2)"
        " AND session = (SELECT max(session) FROM sessions WHERE model = ?)",
        (batch_no, row["model"]),
    ).fetchone()[0]
    quarantined = db.execute("SELECT count(*) FROM quarantined WHERE batch_no = ?", (batch_no,)).fetchone()[0]
    return Progress(
        batch_id=row["batch_id"],
        status=BatchStatus(row["status"]),
        total=row["rows_total"],
        outstanding=held or 0,
        quarantined=quarantined,
        **{name: row[name] for name in COUNTERS},
    )
