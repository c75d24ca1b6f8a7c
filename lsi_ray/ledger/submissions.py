"""Creating a batch once, however often the request arrives, and what the service keeps beside it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import msgspec

from lsi_ray.errors import LedgerError
from lsi_ray.ledger import batches, digest
from lsi_ray.ledger.service_records import BatchSize, Load, Request, Served, ServiceState, Submitted
from lsi_ray.ledger.states import BatchStatus

KEY_KEPT_S = 7 * 86400.0
_FRUITLESS = (BatchStatus.FAILED, BatchStatus.CANCELLED, BatchStatus.CANCELLING)


def submit(db: sqlite3.Connection, one: Submitted, now: float) -> tuple[str, bool]:
    """The id of the batch there is, and whether it was made now."""
    known = repeated(db, one.request, now)
    if known is not None:
        return known, False
    batches.insert(db, one.new, now)
    batch_no = batches.find(db, one.new.batch_id)["batch_no"]
    warnings = msgspec.json.encode(one.warnings).decode()
    db.execute("INSERT INTO service (batch_no, warnings) VALUES (?, ?)", (batch_no, warnings))
    if one.retry_root is not None:
        root_no = batches.find(db, one.retry_root)["batch_no"]
        db.execute("UPDATE service SET retries = retries + 1 WHERE batch_no = ?", (root_no,))
    db.execute("DELETE FROM idempotency WHERE at < ?", (now - KEY_KEPT_S,))
    db.execute(
        "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)",
        (one.new.caller, _key(one.request), one.body, one.new.batch_id, now),
    )
    return one.new.batch_id, True


def _key(one: Request) -> str:
    return f"key {one.key}" if one.key is not None else f"body {one.body}"


def repeated(db: sqlite3.Connection, one: Request, now: float) -> str | None:
    """The batch that this request made before."""
    row = db.execute(
        "SELECT * FROM idempotency JOIN batches USING (batch_id) WHERE idempotency.caller = ? AND key = ?",
        (one.caller, _key(one)),
    ).fetchone()
    if row is None:
        return None
    if one.key is not None:
        if row["body"] != one.body:
            raise LedgerError(
                "idempotency_conflict", f"this Idempotency-Key made {row['batch_id']} of another request before"
            )
        return str(row["batch_id"])
    fresh = now - row["at"] < one.within_s and row["status"] not in _FRUITLESS
    return str(row["batch_id"]) if fresh else None


def served(db: sqlite3.Connection, row: sqlite3.Row) -> Served:
    batch = batches.read(db, row)
    if (window := _window(db, row["batch_no"])) is not None:
        batch = replace(batch, window=window)
    return Served(batch, batches.progress(db, row), state(db, row), digest.read(db, row["batch_no"]))


def _window(db: sqlite3.Connection, batch_no: int) -> str | None:
    """The window that a patch has set."""
    row = db.execute("SELECT window FROM service WHERE batch_no = ?", (batch_no,)).fetchone()
    return row["window"] if row is not None else None


def state(db: sqlite3.Connection, row: sqlite3.Row) -> ServiceState:
    kept = db.execute("SELECT * FROM service WHERE batch_no = ?", (row["batch_no"],)).fetchone()
    if kept is None:  # a batch of `lsi run`
        return ServiceState()
    return ServiceState(
        archived=bool(kept["archived"]),
        notice=kept["notice"],
        warnings=tuple(msgspec.json.decode(kept["warnings"])),
        output_file_id=kept["output_file_id"],
        error_file_id=kept["error_file_id"],
        retries=kept["retries"],
        validation_begun=kept["validation_begun_at"] is not None,
        size=_size(kept),
    )


def _size(row: sqlite3.Row) -> BatchSize:
    return BatchSize(row["planned_rows"], row["prompt_bytes"], row["max_tokens"], row["media"])


def loads(db: sqlite3.Connection) -> tuple[Load, ...]:
    """By age, all batches that are validating or running."""
    rows = db.execute(
        "SELECT batch_id, model, caller, status, deadline, priority, rows_total, completed, failed,"
        " prompt_tokens + completion_tokens AS tokens, planned_rows, prompt_bytes, max_tokens, media"
        " FROM batches JOIN counts USING (batch_no) JOIN service USING (batch_no)"
        " WHERE erased = 0 AND status IN (?, ?) ORDER BY batch_no",
        (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS),
    )
    return tuple(_load(row) for row in rows.fetchall())


def _load(row: sqlite3.Row) -> Load:
    batch_id, model, caller, status, deadline, priority, total, completed, failed, tokens = row[:10]
    counts = (total, completed, failed, tokens)
    return Load(batch_id, model, caller, BatchStatus(status), deadline, priority, *counts, _size(row))


def change(db: sqlite3.Connection, batch_no: int, **columns: object) -> None:
    """Set columns of `service`; their names come from our code only."""
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    db.execute(f"UPDATE service SET {assignments} WHERE batch_no = :batch_no", {"batch_no": batch_no, **columns})


def page(
    db: sqlite3.Connection, caller: str, *, limit: int, offset: int, after: str | None, archived: bool
) -> tuple[Served, ...]:
    """Newest first; after the batch `after` (`no_such_batch` unless it is the caller's), or from an offset."""
    where, values = "caller = ? AND archived <= ?", [caller, int(archived)]
    if after is not None:
        where += " AND batch_no < ?"
        values.append(owned(db, caller, after)["batch_no"])
    rows = db.execute(
        f"{batches.SELECT} JOIN service USING (batch_no) WHERE {where} ORDER BY batch_no DESC LIMIT ? OFFSET ?",
        (*values, limit, offset),
    ).fetchall()
    return tuple(served(db, row) for row in rows)


def owned(db: sqlite3.Connection, caller: str, batch_id: str) -> sqlite3.Row:
    """LedgerError `no_such_batch` also for somebody else's."""
    row = batches.find(db, batch_id)
    if row["caller"] != caller:
        raise LedgerError("no_such_batch", f"no batch {batch_id!r}")
    return row
