"""The ladder that isolates a poison row: at most three crashes for it, and no harm to its neighbours.

attempt 1, a whole shard among others   crash -> its unanswered rows become suspects of at most 8 rows
attempt 2, 8 rows alone in the engine   crash -> suspects of one row
attempt 3, one row alone                crash -> the ledger answers it with `code` and the reason
"""

from __future__ import annotations

import logging
import sqlite3

from lsi_ray.ledger import batches, positions, shards

log = logging.getLogger(__name__)

MESSAGE_CHARS = 500


def crash(db: sqlite3.Connection, shard: sqlite3.Row, code: str, reason: str, now: float) -> None:
    """Blame a shard that ran when its engine died. Each rung changes the shard's id, so a repeat finds nothing."""
    if shard["attempt"] < shards.LAST_ATTEMPT:
        shards.split(db, shard, shard["attempt"] + 1)
        return
    _quarantine(db, shard, code, reason)
    batches.finish_if_answered(db, shard["batch_no"], now)


def _quarantine(db: sqlite3.Connection, shard: sqlite3.Row, code: str, reason: str) -> None:
    batch_no = shard["batch_no"]
    todo = positions.members(shard["start"], shard["stop"], shard["done"])
    message = f"the engine was lost {shards.LAST_ATTEMPT} times while this request ran, the last times with it alone"
    full = f"{message}: {reason}"[:MESSAGE_CHARS]
    db.executemany("INSERT INTO quarantined VALUES (?, ?, ?, ?)", ((batch_no, p, code, full) for p in todo))
    shards.set_done(db, shard, positions.with_bits(shard["start"], shard["done"], todo, True))
    batches.count(db, batch_no, failed=len(todo))
    batch = db.execute("SELECT batch_id FROM batches WHERE batch_no = ?", (batch_no,)).fetchone()["batch_id"]
    for position in todo:
        log.warning("row ended by crashes", extra={"fields": {"batch": batch, "position": position, "code": code}})
