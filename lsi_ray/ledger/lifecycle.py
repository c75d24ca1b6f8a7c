"""The steps of a batch from the end of validation to its erasure; each runs in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

import msgspec

from lsi_ray.errors import Finding, LedgerError
from lsi_ray.ledger import batches, commits, digest, shards
from lsi_ray.ledger.records import ErrorNote, SegmentRef
from lsi_ray.ledger.states import BatchStatus


def start(
    db: sqlite3.Connection,
    batch_id: str,
    rows_total: int,
    plan_rows: int,
    cuts: shards.Cuts,
    segment: SegmentRef | None,
    failed: int | None,
    errors: Sequence[ErrorNote],
    now: float,
) -> None:
    batch = batches.find(db, batch_id)
    if batch["shard_rows"]:
        _check_same_start(db, batch, (rows_total, plan_rows, cuts.most), segment)
        return
    answered = rows_total - plan_rows
    failed = answered if failed is None else failed
    _check_start(rows_total, plan_rows, cuts, segment, failed)
    batches.move(db, batch, BatchStatus.IN_PROGRESS, now)
    batch_no = batch["batch_no"]
    db.execute("UPDATE batches SET shard_rows = ? WHERE batch_no = ?", (cuts.most, batch_no))
    batches.count(db, batch_no, rows_total=rows_total, plan_rows=plan_rows)
    if segment is not None:
        sums = dict.fromkeys(commits.SUMS, 0) | {"completed": answered - failed, "failed": failed}
        commits.record(db, batch_no, segment, None, [], sums)
        batches.count(db, batch_no, **sums)
        digest.add(db, batch_no, segment.name, errors)
    shards.insert(db, batch_no, cuts)
    batches.finish_if_answered(db, batch_no, now)


def _check_start(rows_total: int, plan_rows: int, cuts: shards.Cuts, segment: SegmentRef | None, failed: int) -> None:
    answered = rows_total - plan_rows
    held = segment.rows if segment else 0
    if not (0 <= plan_rows <= rows_total and cuts.part(plan_rows) and held == answered and 0 <= failed <= answered):
        raise LedgerError(
            "bad_answers",
            f"{rows_total} rows, {plan_rows} to run in shards of {cuts.most}, {held} answered by validation, "
            f"{failed} of them failed: this does not add up",
        )


def _check_same_start(
    db: sqlite3.Connection, batch: sqlite3.Row, given: tuple[int, int, int], segment: SegmentRef | None
) -> None:
    """A repeated start is the same start, or the plan changed under a running batch."""
    row = db.execute(
        "SELECT sha256 FROM segments WHERE batch_no = ? AND positions IS NULL", (batch["batch_no"],)
    ).fetchone()
    known = (batch["rows_total"], batch["plan_rows"], batch["shard_rows"], row["sha256"] if row else None)
    if not batch["erased"] and known != (*given, segment.sha256 if segment else None):
        raise LedgerError("batch_conflict", f"batch {batch['batch_id']} was started before with another plan")


def fail(db: sqlite3.Connection, batch_id: str, findings: Sequence[Finding], now: float) -> None:
    batch = batches.find(db, batch_id)
    if batch["status"] == BatchStatus.FAILED:
        return
    batches.move(db, batch, BatchStatus.FAILED, now)
    encoded = msgspec.json.encode([asdict(finding) for finding in findings]).decode()
    db.execute("UPDATE batches SET findings = ? WHERE batch_no = ?", (encoded, batch["batch_no"]))


def cancel(db: sqlite3.Connection, batch_id: str, now: float) -> None:
    batch = batches.find(db, batch_id)
    status = BatchStatus(batch["status"])
    if status != BatchStatus.CANCELLING and not status.terminal:
        batches.move(db, batch, BatchStatus.CANCELLING, now, BatchStatus.CANCELLED)


def expire_due(db: sqlite3.Connection, moment: float, now: float) -> tuple[str, ...]:
    due = db.execute(
        f"{batches.SELECT} WHERE deadline <= ? AND status IN (?, ?) ORDER BY deadline, batch_no",
        (moment, BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS),
    ).fetchall()
    for batch in due:
        batches.move(db, batch, BatchStatus.FINALIZING, now, BatchStatus.EXPIRED)
    return tuple(batch["batch_id"] for batch in due)


def deliver(db: sqlite3.Connection, batch_id: str, status: BatchStatus, now: float) -> None:
    batch = batches.find(db, batch_id)
    if batch["status"] == status and status.terminal:
        return
    if batch["outcome"] != status:
        heading = batch["outcome"] or "nowhere yet"
        raise LedgerError(
            "illegal_transition",
            f"batch {batch_id} is {batch['status']} and heading for {heading}: it cannot be delivered as {status}",
        )
    batches.move(db, batch, status, now)


def erase(db: sqlite3.Connection, batch_id: str) -> None:
    batch = batches.find(db, batch_id)
    if not BatchStatus(batch["status"]).terminal:
        raise LedgerError("illegal_transition", f"batch {batch_id} is {batch['status']}: only a terminal one is erased")
    digest.forget_examples(db, batch["batch_no"])
    for table in ("shards", "segments"):
        db.execute(f"DELETE FROM {table} WHERE batch_no = ?", (batch["batch_no"],))
    db.execute("UPDATE batches SET erased = 1 WHERE batch_no = ?", (batch["batch_no"],))
