"""Shards: the pieces of a batch's plan that are leased, retried and answered.

Invariants: the shards of a batch part its positions without gap or overlap; a shard knows which of its positions are
answered (`done`) and how many are not (`todo`); it is DONE exactly when none is left. `attempt` 1 is the first; a
suspect (attempt 2, then 3) has at most 8, then 1, unanswered rows and runs alone (see crashes.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from lsi_ray.errors import LedgerError
from lsi_ray.ledger import positions
from lsi_ray.ledger.records import Lease
from lsi_ray.ledger.turns import engine_rank


class ShardState(IntEnum):
    PENDING = 0
    LEASED = 1
    BEGUN = 2
    DONE = 3


MAX_TODO = {2: 8, 3: 1}
"""Unanswered rows in a suspect, by attempt. Attempt 1 has as many as the batch's shards."""

LAST_ATTEMPT = 3

INSERT = """INSERT INTO shards (batch_no, start, stop, attempt, state, todo, done, begun, interrupted)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""


@dataclass(frozen=True, slots=True)
class Cuts:
    """`stops`: where each shard of a plan ends. `most`: rows in the largest, or in any that there might have been."""

    stops: tuple[int, ...]
    most: int

    def part(self, plan_rows: int) -> bool:
        """Whether they part the plan without gap or overlap."""
        ascending = all(a < b for a, b in pairwise((0, *self.stops)))
        return self.most > 0 and ascending and (self.stops[-1] if self.stops else 0) == plan_rows


def cuts(plan_rows: int, shard_rows: int, stops: Sequence[int] | None) -> Cuts:
    """As `stops` says, or else every `shard_rows`."""
    if stops is not None:
        return Cuts(tuple(stops), max((b - a for a, b in pairwise((0, *stops))), default=shard_rows))
    return Cuts(
        (*range(shard_rows, plan_rows, shard_rows), plan_rows) if plan_rows and shard_rows > 0 else (), shard_rows
    )


def insert(db: sqlite3.Connection, batch_no: int, cuts: Cuts) -> None:
    db.executemany(
        INSERT,
        (
            (batch_no, a, b, 1, ShardState.PENDING, b - a, positions.empty(a, b), 0, 0)
            for a, b in pairwise((0, *cuts.stops))
        ),
    )


def held(db: sqlite3.Connection, session: int, shard_ids: Iterable[int]) -> list[sqlite3.Row]:
    """Those of the shards that `session` holds now, leased or begun, in order of id."""
    rows = (
        db.execute("SELECT * FROM shards WHERE shard_id = ? AND session = ?", (shard_id, session)).fetchone()
        for shard_id in sorted(set(shard_ids))
    )
    return [row for row in rows if row is not None]


def holding(db: sqlite3.Connection, batch_no: int, ordered: list[int]) -> Iterator[tuple[sqlite3.Row, list[int]]]:
    """The shards that hold the ascending positions, each with its share of them."""
    at = 0
    while at < len(ordered):
        row = db.execute(
            "SELECT * FROM shards WHERE batch_no = ? AND start <= ? ORDER BY start DESC LIMIT 1",
            (batch_no, ordered[at]),
        ).fetchone()
        if row is None or ordered[at] >= row["stop"]:
            raise LedgerError("bad_answers", f"position {ordered[at]} is not in the plan of this batch")
        first = at
        while at < len(ordered) and ordered[at] < row["stop"]:
            at += 1
        yield row, ordered[first:at]


def set_done(db: sqlite3.Connection, shard: sqlite3.Row, done: bytes) -> None:
    """Store the answered positions; a shard without an open one is DONE and nobody's."""
    todo = shard["stop"] - shard["start"] - positions.count(done)
    if todo:
        db.execute("UPDATE shards SET done = ?, todo = ? WHERE shard_id = ?", (done, todo, shard["shard_id"]))
    else:
        db.execute(
            "UPDATE shards SET done = ?, todo = 0, state = ?, session = NULL, replica = NULL WHERE shard_id = ?",
            (done, ShardState.DONE, shard["shard_id"]),
        )


def hand_back(db: sqlite3.Connection, shard: sqlite3.Row) -> None:
    """End the lease without blame."""
    db.execute(
        "UPDATE shards SET state = ?, session = NULL, replica = NULL WHERE shard_id = ?",
        (ShardState.PENDING, shard["shard_id"]),
    )


def renew(db: sqlite3.Connection, shard: sqlite3.Row) -> None:
    """The same shard, pending, under a new id: whoever holds it and asks late finds nothing."""
    db.execute("DELETE FROM shards WHERE shard_id = ?", (shard["shard_id"],))
    kept = ("batch_no", "start", "stop", "attempt", "todo", "done", "begun", "interrupted")
    values = {name: shard[name] for name in kept} | {"state": ShardState.PENDING}
    db.execute(f"INSERT INTO shards ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", (*values.values(),))


def reopen(db: sqlite3.Connection, shard: sqlite3.Row, lost: list[int]) -> None:
    """Answers were lost: their positions are open again, and a lease of the shard ends, since its holder runs others.

    What all had answers is no suspect any more; else it is split anew, or a crash of its one bad row would blame the
    reopened ones too.
    """
    done = positions.with_bits(shard["start"], shard["done"], lost, False)
    todo = shard["stop"] - shard["start"] - positions.count(done)
    attempt = shard["attempt"] if shard["todo"] else 1
    db.execute(
        "UPDATE shards SET done = ?, todo = ?, state = ?, attempt = ?, session = NULL, replica = NULL"
        " WHERE shard_id = ?",
        (done, todo, ShardState.PENDING, attempt, shard["shard_id"]),
    )
    if attempt > 1:
        split(db, _row(db, shard["shard_id"]), attempt)


def _row(db: sqlite3.Connection, shard_id: int) -> sqlite3.Row:
    row: sqlite3.Row = db.execute("SELECT * FROM shards WHERE shard_id = ?", (shard_id,)).fetchone()
    return row


def split(db: sqlite3.Connection, shard: sqlite3.Row, attempt: int) -> None:
    """Replace the shard by pending suspects of this attempt, which part its range."""
    db.execute("DELETE FROM shards WHERE shard_id = ?", (shard["shard_id"],))
    for start, stop in _pieces(shard, MAX_TODO[attempt]):
        done = positions.slice_bits(shard["start"], shard["done"], start, stop)
        todo = stop - start - positions.count(done)
        state = ShardState.PENDING if todo else ShardState.DONE
        db.execute(
            INSERT,
            (shard["batch_no"], start, stop, attempt, state, todo, done, shard["begun"], shard["interrupted"]),
        )


def _pieces(shard: sqlite3.Row, max_todo: int) -> Iterator[tuple[int, int]]:
    """Ranges with at most `max_todo` unanswered positions each; answered ones go with those before them."""
    todo = positions.members(shard["start"], shard["stop"], shard["done"])
    bounds = [shard["start"], *todo[max_todo::max_todo], shard["stop"]]
    return pairwise(bounds)


def lease_of(row: sqlite3.Row, batch: sqlite3.Row, session: int, now: float, cache_salt: str) -> Lease:
    return Lease(
        batch_id=batch["batch_id"],
        shard_id=row["shard_id"],
        session=session,
        start=row["start"],
        stop=row["stop"],
        attempt=row["attempt"],
        done=row["done"],
        exclusive=row["attempt"] > 1,
        rank=engine_rank(batch["deadline"], batch["priority"], now),
        cache_salt=cache_salt,
    )
