"""What must be true of a ledger at any moment, checked from its tables: for tests, simulations and `fsck`."""

from __future__ import annotations

import sqlite3
from itertools import pairwise

from lsi_ray.errors import LedgerError
from lsi_ray.ledger import batches, positions
from lsi_ray.ledger.commits import SUMS
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.shards import MAX_TODO, ShardState
from lsi_ray.ledger.states import TRANSITIONS, BatchStatus


def check_invariants(ledger: Ledger) -> None:
    """LedgerError `invariant_broken`, naming the batch and what does not hold."""
    with ledger.reading() as db:
        for batch in db.execute(f"{batches.SELECT} ORDER BY batch_no").fetchall():
            _check_history(db, batch)
            if not batch["erased"]:
                answered = _check_shards(db, batch)
                _check_segments(db, batch, answered)
                _check_status(batch, answered)


def _hold(condition: bool, batch: sqlite3.Row, what: str) -> None:
    if not condition:
        raise LedgerError("invariant_broken", f"batch {batch['batch_id']} ({batch['status']}): {what}")


def _check_history(db: sqlite3.Connection, batch: sqlite3.Row) -> None:
    rows = db.execute("SELECT status FROM history WHERE batch_no = ? ORDER BY step", (batch["batch_no"],))
    path = [BatchStatus(row["status"]) for row in rows]
    _hold(path[:1] == [BatchStatus.VALIDATING], batch, "its history does not begin with validating")
    _hold(path[-1] == batch["status"], batch, f"its history ends with {path[-1]}")
    for before, after in pairwise(path):
        _hold(after in TRANSITIONS[before], batch, f"{before} -> {after} in its history is not declared")


def _check_shards(db: sqlite3.Connection, batch: sqlite3.Row) -> set[int]:
    """The answered positions."""
    newest = db.execute("SELECT max(session) FROM sessions WHERE model = ?", (batch["model"],)).fetchone()[0]
    answered: set[int] = set()
    at = 0
    for shard in db.execute("SELECT * FROM shards WHERE batch_no = ? ORDER BY start", (batch["batch_no"],)):
        _hold(shard["start"] == at < shard["stop"], batch, f"the shards do not part the plan at position {at}")
        at = shard["stop"]
        todo = positions.members(shard["start"], shard["stop"], shard["done"])
        answered |= set(range(shard["start"], shard["stop"])) - set(todo)
        _check_shard(batch, shard, len(todo), newest)
    _hold(at == batch["plan_rows"], batch, f"the shards end at {at} of {batch['plan_rows']}")
    return answered


def _check_shard(batch: sqlite3.Row, shard: sqlite3.Row, todo: int, newest: int | None) -> None:
    name = f"shard {shard['shard_id']}"
    held = shard["state"] in (ShardState.LEASED, ShardState.BEGUN)
    _hold(shard["todo"] == todo, batch, f"{name} counts {shard['todo']} open rows, its bitmap {todo}")
    _hold((shard["state"] == ShardState.DONE) == (todo == 0), batch, f"{name}: {todo} open in state {shard['state']}")
    _hold(shard["session"] == (newest if held else None), batch, f"{name} is with session {shard['session']}")
    _hold(not held or batch["status"] == BatchStatus.IN_PROGRESS, batch, f"{name} is leased")
    _hold(shard["state"] != ShardState.BEGUN or shard["begun"] > 0, batch, f"{name} runs without having begun")
    limit = MAX_TODO.get(shard["attempt"], batch["shard_rows"])
    _hold(1 <= shard["attempt"] <= 3 and todo <= limit, batch, f"{name}: {todo} open, attempt {shard['attempt']}")


def _check_segments(db: sqlite3.Connection, batch: sqlite3.Row, answered: set[int]) -> None:
    batch_no = batch["batch_no"]
    rows = db.execute("SELECT position FROM quarantined WHERE batch_no = ?", (batch_no,)).fetchall()
    owned = [row["position"] for row in rows]
    sums = dict.fromkeys(SUMS, 0) | {"failed": len(owned)}
    for segment in db.execute("SELECT * FROM segments WHERE batch_no = ?", (batch_no,)):
        taken = positions.unpack(segment["positions"]) if segment["positions"] is not None else ()
        accepted = segment["completed"] + segment["failed"]
        _hold(segment["positions"] is None or accepted == len(taken), batch, f"{segment['name']} miscounts its rows")
        owned += taken
        for name in SUMS:
            sums[name] += segment[name]
    _hold(len(owned) == len(set(owned)), batch, "a row was answered twice")
    _hold(set(owned) == answered, batch, "the bitmaps and the segments disagree")
    noted = db.execute("SELECT coalesce(sum(rows), 0) FROM errors WHERE batch_no = ?", (batch_no,)).fetchone()[0]
    _hold(noted <= batch["failed"], batch, f"its digest tells of {noted} failed rows, there are {batch['failed']}")
    for name in SUMS:
        _hold(batch[name] == sums[name], batch, f"{name} is {batch[name]}, its parts sum to {sums[name]}")


def _check_status(batch: sqlite3.Row, answered: set[int]) -> None:
    total, status, outcome = batch["rows_total"], batch["status"], batch["outcome"]
    finished = batch["completed"] + batch["failed"]
    _hold(finished == len(answered) + total - batch["plan_rows"], batch, f"{finished} finished rows of {total}")
    _hold(status != BatchStatus.IN_PROGRESS or finished < total, batch, "it runs with nothing to do")
    _hold(status != BatchStatus.COMPLETED or finished == total, batch, "it is completed with open rows")
    _hold(outcome != BatchStatus.COMPLETED or finished == total, batch, "it is to be completed with open rows")
    _hold((status in (BatchStatus.FINALIZING, BatchStatus.CANCELLING)) == (outcome is not None), batch, "its outcome")
    distinct = batch["rows_begun"] - batch["rows_rerun"]
    _hold(0 <= distinct <= batch["plan_rows"], batch, f"{distinct} distinct rows begun")
